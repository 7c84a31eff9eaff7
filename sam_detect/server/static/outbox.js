// What the user decided and the server has not confirmed yet. It is kept in the browser, so that a
// reload loses nothing, and is sent in order. Each decision has a key of its own: the server does a
// decision that comes twice only once.

import { Refused, asJson } from "./api.js";
import { kept } from "./dom.js";

const RETRY_MS = [500, 1000, 2000, 5000, 10000];
/** The server may answer later; any other refusal is final. */
const LATER = [0, 401, 408, 425, 429, 502, 503, 504, 507];

function newKey() {
  // randomUUID() is only there on encrypted or local pages.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Outbox {
  /**
   * @param page {library(): its name, numberOf(picture): where a picture is now, or null, answered(answer, entry), refused(text, entry), changed(count, problem)}
   */
  constructor(page) {
    this.page = page;
    this.entries = [];
    this.sending = false;
    addEventListener("online", () => this.wake?.());
    // What the browser could not keep is lost when the page closes.
    addEventListener("beforeunload", (event) => { if (this.entries.some((entry) => !entry.kept)) event.preventDefault(); });
  }

  get length() { return this.entries.length; }

  get place() { return `outbox ${this.page.library()} `; }

  /** Takes up what an earlier page has not sent. */
  resume() {
    const found = kept.keys(this.place).map((key) => kept.get(key)).filter(Boolean);
    found.sort((one, other) => one.time - other.time);
    this.entries.unshift(...found.map((entry) => ({ ...entry, kept: true, done: () => {} })));
    this.flush();
    return found.length;
  }

  /**
   * Sends a decision; resolves to the answer, or to null where it is refused.
   * @param entry {to, body, picture, select}: `to` is the address below the picture's own, or the whole one where there is no picture {number, name, digest}; `select`: ids that are selected then, with what is made; null changes nothing.
   */
  send(entry) {
    return new Promise((done) => {
      const whole = { ...entry, key: newKey(), time: Date.now() };
      whole.kept = kept.set(this.place + whole.key, whole);
      whole.done = done;
      this.entries.push(whole);
      this.flush();
    });
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    for (let tried = 0; this.entries.length; ) {
      const [entry] = this.entries;
      if (!tried) this.page.changed(this.length);
      try {
        this.end(entry, await this.post(entry));
        tried = 0;
      } catch (error) {
        if (error instanceof Refused && !LATER.includes(error.status)) {
          this.end(entry, null);
          this.page.refused(error.message, entry);
          tried = 0;
        } else {
          this.page.changed(this.length, error.message);
          await this.pause(RETRY_MS[Math.min(tried, RETRY_MS.length - 1)]);
          tried += 1;
        }
      }
    }
    this.sending = false;
    this.page.changed(0);
  }

  async post({ to, body, picture, key }) {
    const headers = { "Idempotency-Key": key };
    if (!picture) return asJson(to, body, { headers });
    const number = this.page.numberOf(picture);
    if (number === null) throw new Refused(404, `${picture.name} is no longer there`);
    if (picture.digest) headers["If-Match"] = `"${picture.digest}"`;
    return asJson(`api/pictures/${number}/${to}`, body, { headers });
  }

  end(entry, answer) {
    this.entries.shift();
    kept.remove(this.place + entry.key);
    if (answer) {
      this.rename(entry, answer.made ?? []);
      this.page.answered(answer, entry);
    }
    entry.done(answer);
  }

  /** An object that was edited has another id now: what was decided of it meanwhile follows. */
  rename({ body, picture }, made) {
    if (made.length !== 1 || body.objects?.length !== 1) return;
    const [[before], [now]] = [body.objects, made];
    const renamed = (id) => (id === before ? now : id);
    for (const entry of this.entries) {
      if (entry.picture?.digest !== picture.digest) continue;
      if (entry.body.objects) entry.body.objects = entry.body.objects.map(renamed);
      if (entry.body.decisions) entry.body.decisions = entry.body.decisions.map((each) => ({ ...each, object: renamed(each.object) }));
      if (entry.kept) kept.set(this.place + entry.key, { ...entry, done: undefined });
    }
  }

  pause(milliseconds) {
    return new Promise((wake) => {
      this.wake = wake;
      setTimeout(wake, milliseconds);
    });
  }
}
