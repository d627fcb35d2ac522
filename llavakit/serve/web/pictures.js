// Files a person has -> data URLs that the server takes.

const TAKEN = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const BYTES = 2 * 2 ** 20;
const SIDE = 1536;

/** A file as a data URL: as it is where it is small, else redrawn at most SIDE pixels wide and high. */
export async function read(file) {
  if (TAKEN.includes(file.type) && file.size <= BYTES) return asURL(file);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name || "This file"} is no picture that this browser can open.`);
  }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, bitmap.width * scale), Math.max(1, bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const jpeg = file.type === "image/jpeg";
  return asURL(await canvas.convertToBlob({ type: jpeg ? "image/jpeg" : "image/png", quality: 0.92 }));
}

function asURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The picture could not be read."));
    reader.readAsDataURL(blob);
  });
}
