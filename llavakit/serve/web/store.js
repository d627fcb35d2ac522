// Conversations in this browser (IndexedDB: pictures are too large for localStorage), settings beside them.

const KEY = "llavakit.settings";
const DEFAULTS = {
  model: "", temperature: 0, top_p: 1, max_tokens: 512, seed: null, system: "", key: "", theme: "system",
};

export function loadSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

export function saveSettings(settings) {
  localStorage.setItem(KEY, JSON.stringify(settings));
}

const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("llavakit", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function on(mode, work) {
  const database = await opened;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction("conversations", mode);
    const request = work(transaction.objectStore("conversations"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** All conversations, the latest first. */
export async function all() {
  return (await on("readonly", (store) => store.getAll())).sort((a, b) => b.changed - a.changed);
}

export const get = (id) => on("readonly", (store) => store.get(id));
export const put = (conversation) => on("readwrite", (store) => store.put(conversation));
export const remove = (id) => on("readwrite", (store) => store.delete(id));
