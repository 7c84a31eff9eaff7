// Groups of objects of all pictures that are alike: take out what does not belong, name the rest.

import { asJson, asUrl } from "./api.js";

const SHOWN = 60; // thumbnails of a group at a time
const AT_ONCE = 25; // groups

/** Fills the element; `named(decisions)` is called with what the user decides. */
export async function showGroups(element, { labels, named, say }) {
  const { groups, surveyed } = await asJson("api/groups");
  const title = Object.assign(document.createElement("h2"), { textContent: "Groups" });
  const text = document.createElement("p");
  text.textContent = groups.length
    ? `${groups.length} groups of objects without a sure name, of ${surveyed} pictures. Click on what does not belong to a group, then name the rest.`
    : `No groups yet: ${surveyed} pictures were looked at so far. Further ones are looked at while nothing else is done.`;
  const list = Object.assign(document.createElement("div"), { className: "groups-list" });
  list.append(...groups.slice(0, AT_ONCE).map((group, index) => drawn(group, index, { labels, named, say })));
  element.replaceChildren(title, text, list);
}

function drawn(group, index, { labels, named, say }) {
  const box = Object.assign(document.createElement("section"), { className: "objects-group" });
  const heading = document.createElement("h3");
  heading.id = `group-${index}`;
  heading.textContent = group.label ? `Suggested: ${group.label}` : "Unknown";
  box.setAttribute("aria-labelledby", heading.id);
  const form = document.createElement("form");
  const input = Object.assign(document.createElement("input"), { value: group.label ?? "", autocomplete: "off", maxLength: 200 });
  input.setAttribute("list", labels);
  input.setAttribute("aria-label", `Name of group ${index + 1}`);
  const button = Object.assign(document.createElement("button"), { type: "submit" });
  const members = Object.assign(document.createElement("div"), { className: "members" });
  let shown = group.members.slice(0, SHOWN);
  const out = new Set();
  const count = () => {
    button.textContent = `Name ${shown.length - out.size} of ${group.members.length}`;
    button.disabled = shown.length === out.size;
  };
  const add = (member) => {
    const chosen = Object.assign(document.createElement("button"), { type: "button" });
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
    const image = Object.assign(document.createElement("img"), { alt: "" });
    chosen.append(image);
    members.append(chosen);
    mark();
    asUrl(`api/pictures/${member.picture}/objects/${member.object}/thumbnail`)
      .then((url) => { image.src = url; image.onload = () => URL.revokeObjectURL(url); })
      .catch(() => { chosen.remove(); });
  };
  shown.forEach(add);
  form.append(heading, input, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const label = input.value.trim();
    if (!label) { say("type a name for the group"); return; }
    button.disabled = true;
    const kept = shown.filter((member) => !out.has(`${member.picture}/${member.object}`));
    const decisions = kept.map((member) => ({ ...member, label, negative: false }));
    if (await named(decisions)) box.remove();
    else count();
  });
  box.append(form, members);
  return box;
}
