// A photo as it is kept: small enough for a thin network, and without what a camera writes into it besides the picture.

const LONGEST_SIDE_PX = 1600;
const QUALITY = 0.8;

/** JPEG of at most 1600 px. Drawn anew, so position, time and the phone's number are not in it. Error where it is no picture. */
export async function smaller(file: Blob): Promise<ArrayBuffer> {
  const url = URL.createObjectURL(file);
  try {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const scale = Math.min(1, LONGEST_SIDE_PX / Math.max(picture.naturalWidth, picture.naturalHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.naturalWidth * scale);
    canvas.height = Math.round(picture.naturalHeight * scale);
    canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const jpeg = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    if (jpeg === null) throw new Error("this browser made no JPEG of the picture");
    return await new Response(jpeg).arrayBuffer();
  } finally {
    URL.revokeObjectURL(url);
  }
}
