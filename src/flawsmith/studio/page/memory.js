// What the browser keeps for the page: for good, or for this tab. One that keeps nothing (a private window) still works.

function keeper(storage) {
  return {
    /** Return what was kept under a name; null = nothing, or none can be kept. */
    recall(name) {
      try {
        return JSON.parse(storage().getItem(name));
      } catch {
        return null;
      }
    },
    /** Keep a value; null = keep nothing under this name. */
    keep(name, value) {
      try {
        if (value === null) storage().removeItem(name);
        else storage().setItem(name, JSON.stringify(value));
      } catch { /* it holds until the page is closed */ }
    },
  };
}

export const forGood = keeper(() => localStorage); // the name alone throws where a browser forbids it
export const forTab = keeper(() => sessionStorage);
