// Groups of objects of all pictures that are alike: take out what does not belong, name the rest.

import { asJson, asUrl } from "./api.js";
import { at, made, say, trying } from "./dom.js";

const SHOWN = 60; // thumbnails of a group at a time
const AT_ONCE = 25; // groups

export class Groups {
  /** @param page {named(decisions) and deleted(objects): whether that was done; closed()} */
  constructor(page) { this.page = page; }

  async toggle() {
    const shown = at("groups").hidden;
    at("groups").hidden = !shown;
    at("stage").hidden = at("tools").hidden = document.querySelector("aside").hidden = shown;
    at("show-groups").setAttribute("aria-pressed", String(shown));
    if (!shown) { await this.page.closed(); return; }
    at("groups").replaceChildren(made("p", { textContent: "Comparing the objects of all pictures …" }));
    await this.draw();
  }

  /** Shows what was found meanwhile; where the user is at work in the groups, they stay in their places until asked for. */
  async refresh() {
    if (!at("groups").hidden) await this.draw(() => at("groups").querySelector(".objects-group")
      && (at("groups").matches(":hover") || at("groups").contains(document.activeElement) || at("groups").querySelector("[aria-pressed=false]")));
  }

  /** Shows the groups as they are now; only says that there are others, where `busy()`. */
  async draw(busy = () => false) {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const { groups, surveyed } = await asJson("api/groups");
    if (asked !== this.asked) return; // a later answer was here before this one
    if (busy()) { at("newer-groups").disabled = false; return; }
    const text = groups.length
      ? `${groups.length} groups of alike objects without a sure name, of ${surveyed} pictures. Click on what does not belong to a group, then name the rest, or say that it is nothing.`
      : `No groups yet: the objects of ${surveyed} pictures were compared. Others follow while you do nothing else.`;
    const list = made("div", { className: "groups-list" }, ...groups.slice(0, AT_ONCE).map((group, index) => drawn(group, index, this.page)));
    const newer = made("button", { id: "newer-groups", type: "button", textContent: "Show what was found meanwhile", disabled: true });
    newer.addEventListener("click", () => trying(() => this.draw()));
    at("groups").replaceChildren(made("div", { className: "row" }, made("h2", { textContent: "Groups" }), newer), made("p", { textContent: text }), list);
  }
}

function drawn(group, index, page) {
  const box = made("section", { className: "objects-group" });
  const heading = made("h3", { id: `group-${index}`, textContent: group.label ? `Suggested: ${group.label}` : "Unknown" });
  box.setAttribute("aria-labelledby", heading.id);
  const form = made("form");
  const input = made("input", { value: group.label ?? "", autocomplete: "off", maxLength: 200, placeholder: "name" });
  input.setAttribute("list", "labels");
  input.setAttribute("aria-label", `Name of group ${index + 1}`);
  const button = made("button", { type: "submit" });
  const wrong = made("button", { type: "button", title: group.label ? "Learnt: these are not what their name says" : "Only removes the outlines" });
  const members = made("div", { className: "members" });
  let shown = group.members.slice(0, SHOWN);
  const out = new Set();
  const count = () => {
    button.textContent = `Name ${shown.length - out.size} of ${group.members.length}`;
    wrong.textContent = group.label ? `Not ${group.label}` : "No objects";
    button.disabled = wrong.disabled = shown.length === out.size;
  };
  const add = (member) => {
    const image = made("img", { alt: "" });
    const chosen = made("button", { type: "button" }, image);
    const key = `${member.picture}/${member.object}`;
    const mark = () => {
      chosen.setAttribute("aria-pressed", String(!out.has(key)));
      count();
    };
    chosen.setAttribute("aria-label", `object of picture ${member.picture + 1}, belongs to the group`);
    chosen.addEventListener("click", () => {
      if (!out.delete(key)) out.add(key);
      mark();
    });
    members.append(chosen);
    mark();
    asUrl(`api/pictures/${member.picture}/objects/${member.object}/thumbnail`)
      .then((url) => { image.src = url; image.onload = () => URL.revokeObjectURL(url); })
      .catch(() => { chosen.remove(); });
  };
  shown.forEach(add);
  const decide = async (send) => {
    button.disabled = wrong.disabled = true;
    if (await send(shown.filter((member) => !out.has(`${member.picture}/${member.object}`)))) box.remove();
    else count();
  };
  form.append(heading, input, button, wrong);
  wrong.addEventListener("click", () => decide((kept) => group.label
    ? page.named(kept.map((member) => ({ ...member, label: group.label, negative: true })))
    : page.deleted(kept)));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const label = input.value.trim();
    if (!label) { say("type a name for the group"); return; }
    await decide((kept) => page.named(kept.map((member) => ({ ...member, label, negative: false }))));
  });
  box.append(form, members);
  return box;
}
