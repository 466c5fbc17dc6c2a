/** What the pages ask the service: one function for each endpoint, and errors that say what failed. */

/**
 * @param {string} path
 * @param {object} [body] sent as JSON by POST; GET without
 * @returns {Promise<any>}
 */
async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(data.error || data.detail || `${path} answered ${answer.status}`);
  return data;
}

export const line = () => ask("/api/line");
/** @param {string} id */
export const user = (id) => ask(`/api/users/${encodeURIComponent(id)}`);
/** @param {string} id @param {number} k */
export const recommend = (id, k) => ask("/recommend", { user_id: id, k, explain: true });
/** @param {number} k */
export const trending = (k) => ask("/trending", { k });
/** @param {{user_id: string, item_id: string, type: string, request_id?: string}} event */
export const send = (event) => ask("/api/events", event);
