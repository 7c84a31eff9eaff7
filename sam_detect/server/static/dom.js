// What the modules of a page share: its elements, what it says, and what it remembers.

export const at = (id) => document.getElementById(id);

/** A new element with its properties and children. */
export function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const say = (text) => { at("status").textContent = text; };

/** For those who hear the page. */
export const speak = (text) => { at("spoken").textContent = text; };

/** Does something; what goes wrong is said. */
export async function trying(work) {
  try { return await work(); } catch (error) {
    if (error.name !== "AbortError") say(error.message);
    return undefined;
  }
}

/** What this browser keeps for the next time; without a store, it keeps nothing. */
export const kept = {
  get(key, otherwise = null) {
    try { return JSON.parse(localStorage.getItem(`sam-detect ${key}`)) ?? otherwise; } catch { return otherwise; }
  },
  /** Whether it is kept now. */
  set(key, value) {
    try { localStorage.setItem(`sam-detect ${key}`, JSON.stringify(value)); } catch { return false; }
    return true;
  },
  remove(key) { try { localStorage.removeItem(`sam-detect ${key}`); } catch { /* nothing was kept */ } },
  keys(start) {
    try { return Object.keys(localStorage).filter((key) => key.startsWith(`sam-detect ${start}`)).map((key) => key.slice(11)); } catch { return []; }
  },
};
