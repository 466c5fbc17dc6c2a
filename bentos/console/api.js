/** What the pages ask the service: one function for each endpoint, and errors that say what failed. */

/** The service wants its key first. */
export class KeyWanted extends Error {}

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
  if (answer.status === 401) throw new KeyWanted(data.error);
  if (!answer.ok) throw new Error(data.error || data.detail || `${path} answered ${answer.status}`);
  return data;
}

const of = (/** @type {string} */ id) => "?id=" + encodeURIComponent(id);

/** The line itself: see pages/line.js. */
export const line = () => ask("/api/line");
/** @param {string} like @returns {Promise<{users: string[]}>} ids that contain it */
export const users = (like) => ask("/api/users?like=" + encodeURIComponent(like));
/** @param {string} id @returns {Promise<{user_id: string, version: number, values: Object<string, any>, titles: Object<string, string>}>} */
export const user = (id) => ask("/api/user" + of(id));
/** @param {string} id @param {number} k @returns {Promise<{request_id: string, items: object[], fallback: string[], user_version: number}>} */
export const recommend = (id, k) => ask("/recommend", { user_id: id, k, explain: true });
/** @param {{user_id: string, item_id: string, type: string, request_id?: string}} event */
export const send = (event) => ask("/api/events", event);
/** @param {string} key of the deployment; the answer is a cookie */
export const session = (key) => ask("/api/session", { key });
/** @param {string} id @returns {string} the address of an item's picture */
export const cover = (id) => "/api/cover" + of(id);
