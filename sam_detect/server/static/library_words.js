// How the library page says things.

export const counted = (count, word = "example") => `${count} ${word}${count === 1 ? "" : "s"}`;
/** A label in a sentence: labels may have 200 characters. */
export const short = (label) => (label.length > 40 ? `${label.slice(0, 39)}…` : label);
