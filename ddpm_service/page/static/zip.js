/** A zip archive without compression: pictures are compressed already. */

const TABLE = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** Little-endian numbers, each with its width in bytes. */
function record(numbers) {
  const view = new DataView(new ArrayBuffer(numbers.reduce((length, [, width]) => length + width, 0)));
  let at = 0;
  for (const [number, width] of numbers) {
    if (width === 2) view.setUint16(at, number, true);
    else view.setUint32(at, number, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

/** The archive of some files, dated now. */
export async function zip(entries) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const body = [];
  const directory = [];
  let offset = 0;
  let directorySize = 0;
  for (const { name, file } of entries) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const label = new TextEncoder().encode(name);
    const common = [
      [20, 2], [0x0800, 2], [0, 2], [time, 2], [date, 2], [crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4],
      [label.length, 2], [0, 2],
    ];
    const head = record([[0x04034b50, 4], ...common]);
    const entry = record([[0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]);
    body.push(head, label, bytes);
    directory.push(entry, label);
    offset += head.length + label.length + bytes.length;
    directorySize += entry.length + label.length;
  }
  const count = entries.length;
  const end = record([[0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [directorySize, 4], [offset, 4], [0, 2]]);
  return new Blob([...body, ...directory, end], { type: "application/zip" });
}
