// Vectorize's metadata filters: every property has to match, `{ "kind": "note", "page": { "$gte": 3 } }`.

const OPERATORS = {
  $eq: (value, wanted) => value === wanted,
  $ne: (value, wanted) => value !== wanted,
  $in: (value, wanted) => wanted.includes(value),
  $nin: (value, wanted) => !wanted.includes(value),
  $lt: (value, wanted) => comparable(value, wanted) && value < wanted,
  $lte: (value, wanted) => comparable(value, wanted) && value <= wanted,
  $gt: (value, wanted) => comparable(value, wanted) && value > wanted,
  $gte: (value, wanted) => comparable(value, wanted) && value >= wanted,
};

/** Whether a vector's metadata matches. An operator that is unknown matches nothing. */
export function matches(metadata, filter) {
  return Object.entries(filter ?? {}).every(([path, condition]) => {
    // Keys have no dots, so that a dot always leads into an object.
    const value = path.split(".").reduce((inside, key) => inside?.[key], metadata);
    const operators = typeof condition === "object" && condition !== null ? condition : { $eq: condition };
    return Object.entries(operators).every(([name, wanted]) => OPERATORS[name]?.(value, wanted) ?? false);
  });
}

function comparable(value, wanted) {
  return typeof value === typeof wanted && (typeof value === "number" || typeof value === "string");
}
