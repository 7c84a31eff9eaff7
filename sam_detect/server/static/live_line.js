// The line to the server: opens again when it is lost, and sends later what was asked meanwhile.

import { socketProtocols } from "./api.js";

const FIRST_MS = 500;
const LONGEST_MS = 8000;

/** Calls `on.frame(header, blob)`, `on.state(state)`, `on.away(seconds)`, `on.waiting(count)`. */
export class Line {
  constructor(on) {
    this.on = on;
    this.questions = new Map(); // id to {message, session, keep, resolve, reject}
    this.session = null;
    this.over = false;
    this.wait = FIRST_MS;
    this.header = null;
    this.open();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN && this.session !== null;
  }

  open() {
    clearTimeout(this.timer);
    const address = new URL("api/live", location.href);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    const socket = new WebSocket(address, socketProtocols());
    this.socket = socket;
    this.greeted = false;
    socket.binaryType = "blob";
    socket.addEventListener("message", ({ data }) => this.hear(data));
    socket.addEventListener("close", () => {
      if (socket === this.socket) this.lost();
    });
  }

  lost() {
    this.greeted = false;
    if (this.over) return;
    // What the user would not want later is given up: a click on a picture that is gone.
    for (const [id, question] of this.questions) {
      if (!question.keep) this.settle(id, "reject", new Error("the connection was lost: do it again"));
    }
    const wait = this.wait * (0.75 + Math.random() / 2); // so that not all windows come at once
    this.wait = Math.min(2 * this.wait, LONGEST_MS);
    this.on.away(Math.max(1, Math.round(wait / 1000)));
    this.timer = setTimeout(() => this.open(), wait);
  }

  hear(data) {
    if (data instanceof Blob) {
      const header = this.header;
      this.on.frame(header, data).finally(() => this.send({ type: "got", number: header.number }));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "frame") this.header = message;
    else if (message.type === "state") this.greet(message);
    else if (message.type === "answer") this.settle(message.id, "resolve", message);
    else if (message.type === "problem") this.settle(message.id, "reject", new Error(message.detail));
  }

  greet(state) {
    this.wait = FIRST_MS;
    this.over = state.finished;
    this.session = state.session;
    this.on.state(state);
    if (this.greeted) return;
    this.greeted = true;
    for (const [id, { message, session }] of this.questions) {
      // Tracks of another run have other numbers.
      if (session !== state.session) {
        this.settle(id, "reject", new Error("not learnt: the video was started anew"));
      } else this.send(message);
    }
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** The answer to a request; `keep`: it is worth sending after a lost connection. */
  ask(message, { keep = false } = {}) {
    if (!this.greeted && !keep) return Promise.reject(new Error("there is no connection now"));
    const id = crypto.getRandomValues(new Uint32Array(3)).join("-");
    const asked = { ...message, id };
    return new Promise((resolve, reject) => {
      this.questions.set(id, { message: asked, session: this.session, keep, resolve, reject });
      this.count();
      if (this.greeted) this.send(asked);
    });
  }

  settle(id, how, value) {
    const question = this.questions.get(id);
    this.questions.delete(id);
    this.count();
    question?.[how](value);
  }

  count() {
    this.on.waiting([...this.questions.values()].filter(({ keep }) => keep).length);
  }
}
