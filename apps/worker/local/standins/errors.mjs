// The errors of Workers AI, with the codes and statuses that its documentation lists.

const ERRORS = {
  noSuchModel: [400, 5007, "No such model"],
  invalidData: [400, 5004, "Invalid data"],
  timeout: [408, 3007, "Timeout"],
  outOfCapacity: [429, 3040, "Capacity temporarily exceeded, please try again."],
  internal: [500, 3043, "Internal server error"],
};

/** An error that the `Ai` class turns into `InferenceUpstreamError: CODE: DESCRIPTION`. */
export function failure(kind, detail) {
  const [status, internalCode, message] = ERRORS[kind];
  const description = detail ? `${message}: ${detail}` : message;
  return { status, body: { internalCode, name: "InferenceUpstreamError", message, description } };
}

/** A key that is refused comes from Cloudflare's API, in its envelope. The `Ai` class reads that too. */
function unauthenticated() {
  const errors = [{ code: 10000, message: "Authentication error" }];
  return { status: 401, body: { success: false, errors, messages: [], result: null } };
}

/** What Workers AI would say where the upstream says `status`. */
export function failureOf(status, detail) {
  switch (status) {
    case 400:
    // Too large for the upstream, not for the model: Workers AI's own 413 (3006) says that the prompt is too long.
    case 413:
    case 422:
      return failure("invalidData", detail);
    case 401:
    case 403:
      return unauthenticated();
    case 404:
      return failure("noSuchModel", detail);
    case 408:
    case 504:
      return failure("timeout", detail);
    case 429:
      return failure("outOfCapacity");
    default:
      return failure("internal", `HTTP ${status}`);
  }
}
