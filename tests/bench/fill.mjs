// Fills the local bucket quickly: 100,000 objects in seconds, where putting them one by one takes ten minutes and more.
//
//   node fill.mjs DATABASE BLOBS    keys on standard input, one a line
//
// It writes what the pinned runtime's own bucket writes: a row for each object and a file with its contents, except that the files
// are links to one. The rows go in by one transaction, which the running bucket sees like any other writer's; what it writes itself
// meanwhile fails, so that nobody may use it at the time.

import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** A file has at most 65,000 names on ext4. */
const LINKS_MAX = 50_000;

const SIZE = 16;
const MD5_OF_16_ZEROS = "4ae71336e44bf9bf79d2752e234818a5";

const [database, blobs] = process.argv.slice(2);
const keys = readFileSync(0, "utf8").split("\n").filter(Boolean);
const db = new DatabaseSync(database);
db.exec("PRAGMA busy_timeout = 60000");

mkdirSync(blobs, { recursive: true });
const now = Date.now();
const rows = [];
let contents;
for (const [at, key] of keys.entries()) {
  if (at % LINKS_MAX === 0) {
    if (contents !== undefined) unlinkSync(contents);
    contents = join(blobs, `fill-${process.pid}-${at}`);
    writeFileSync(contents, Buffer.alloc(SIZE));
  }
  const blob = randomBytes(40).toString("hex");
  linkSync(contents, join(blobs, blob));
  rows.push([key, blob, randomBytes(16).toString("hex")]);
}
if (contents !== undefined) unlinkSync(contents);

db.exec("BEGIN IMMEDIATE");
const insert = db.prepare(
  `INSERT INTO _mf_objects (key, blob_id, version, size, etag, uploaded, checksums, http_metadata, custom_metadata)
   VALUES (?, ?, ?, ${SIZE}, '${MD5_OF_16_ZEROS}', ${now}, '{}', '{}', '{}')`,
);
for (const row of rows) {
  insert.run(...row);
}
db.exec("COMMIT");
