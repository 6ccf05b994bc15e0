/** Pictures saved as files: one, or all of a run in an archive. */

import { zip } from "./zip.js";

const fileName = (slot) => `lookalike-${slot.seed}.${slot.file?.type.split("/")[1] ?? "png"}`;

export function saveOne(slot) {
  save(slot.url, fileName(slot));
}

export async function saveAll(run) {
  const entries = run.finished.map((slot) => ({ name: fileName(slot), file: slot.file }));
  const url = URL.createObjectURL(await zip(entries));
  save(url, `lookalikes-${run.seed}.zip`);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function save(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
