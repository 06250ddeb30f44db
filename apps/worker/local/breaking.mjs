// Runs in workerd, as the beginning of the module that breaks.mjs writes.

/** Returns what makes of a class (the Worker's, or a Durable Object's) one that is constructed with the broken `env`. */
function broken(breaks) {
  return (exported) =>
    new Proxy(exported, {
      construct(target, [state, env], newTarget) {
        return Reflect.construct(target, [state, brokenEnv(env, breaks)], newTarget);
      },
    });
}

function brokenEnv(env, breaks) {
  const bindings = Object.entries(breaks).map(([name, how]) => {
    if (!env[name]) throw new Error(`there is no binding ${name} to break`);
    return [name, brokenBinding(name, env[name], how)];
  });
  return { ...env, ...Object.fromEntries(bindings) };
}

function brokenBinding(name, binding, how) {
  const fail = how === "hangs" ? hang : () => Promise.reject(new Error(`${name} is broken, as the test wants it`));
  switch (binding.constructor.name) {
    // What only names things does not call anything, so that it works.
    case "DurableObjectNamespace": {
      const stub = (object) => failing(object, fail);
      return failing(binding, fail, {
        get: stub,
        getByName: stub,
        ...works("idFromName", "idFromString", "newUniqueId"),
      });
    }
    case "D1Database": {
      const statement = (prepared) => failing(prepared, fail, { bind: statement });
      return failing(binding, fail, { prepare: statement });
    }
    default:
      return failing(binding, fail);
  }
}

function works(...names) {
  return Object.fromEntries(names.map((name) => [name, (result) => result]));
}

/** The object, of which all methods fail but those in `working`, whose results are changed. */
function failing(object, fail, working = {}) {
  return new Proxy(object, {
    get(target, name) {
      // Methods and properties of the runtime's objects take no proxy for `this`.
      const value = target[name];
      if (typeof value !== "function" || name === "constructor") return value;
      if (!Object.hasOwn(working, name)) return fail;
      return (...args) => working[name](value.apply(target, args));
    },
  });
}

/** A call that is lost somewhere. The timer is there because workerd ends requests that wait for nothing at all. */
function hang() {
  return new Promise((resolve) => setTimeout(resolve, 600_000));
}
