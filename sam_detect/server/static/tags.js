// Where the names of objects are written: each next to its object, and none over another one. A name
// that has no room there is written further away, with a line to its object.

const TURNS = 16; // directions in which a place is tried
const RINGS = 12; // ... and distances
const GAP_COST = 0.35; // of each height of a name between it and its object
const OTHERS_COST = 1; // of a name that lies wholly on other objects
const OWN_COST = 0.3;

const clip = (value, most) => Math.max(0, Math.min(value, most));

/** The area in which two boxes [x, y, w, h] overlap. */
function shared([ax, ay, aw, ah], [bx, by, bw, bh]) {
  const wide = Math.min(ax + aw, bx + bw) - Math.max(ax, bx);
  const high = Math.min(ay + ah, by + bh) - Math.max(ay, by);
  return wide > 0 && high > 0 ? wide * high : 0;
}

/** How far two boxes are apart; 0 where they touch. */
function gap([ax, ay, aw, ah], [bx, by, bw, bh]) {
  return Math.hypot(Math.max(0, ax - bx - bw, bx - ax - aw), Math.max(0, ay - by - bh, by - ay - ah));
}

/** Places around an object, the nearest ones first. */
function* around([x, y, w, h], wide, high) {
  const [middle, level] = [x + w / 2, y + h / 2];
  if (w >= wide && h >= 2 * high) yield [x, y];
  yield* [[x, y - high], [middle - wide / 2, y - high], [middle - wide / 2, y + h], [x + w, level - high / 2], [x - wide, level - high / 2]];
  yield* [[x + w, y - high], [x - wide, y - high], [x + w, y + h], [x - wide, y + h], [middle - wide / 2, level - high / 2]];
  for (let ring = 1; ring <= RINGS; ring += 1) {
    for (let turn = 0; turn < TURNS; turn += 1) {
      const angle = (2 * Math.PI * turn) / TURNS;
      const [dx, dy] = [Math.cos(angle), Math.sin(angle)];
      const far = ring * high;
      yield [middle - wide / 2 + dx * ((w + wide) / 2 + far), level - high / 2 + dy * ((h + high) / 2 + far), (GAP_COST * far) / high / 2];
    }
  }
}

/**
 * Where names are written.
 * @param names [{box, wide}]: the box [x, y, w, h] of each object, and the width of its name; those with least room first.
 * @returns for each its box and whether it needs a line to its object; null where no room is left.
 */
export function placed(names, high, width, height) {
  const taken = [];
  return names.map(({ box, wide }) => {
    let best = null;
    let least = Infinity;
    for (const [x, y, atLeast = 0] of around(box, wide, high)) {
      if (atLeast > least) break;
      const place = [clip(x, width - wide), clip(y, height - high), wide, high];
      if (taken.some((other) => shared(place, other))) continue;
      const away = gap(place, box);
      let cost = (GAP_COST * away) / high + (OWN_COST * shared(place, box)) / (wide * high);
      if (cost >= least) continue;
      for (const { box: other } of names) if (other !== box) cost += (OTHERS_COST * shared(place, other)) / (wide * high);
      if (cost < least) [best, least] = [{ box: place, line: away > high / 4 }, cost];
    }
    if (best) taken.push(best.box);
    return best;
  });
}
