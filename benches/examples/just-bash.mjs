// The median time of a script in just-bash, for the example `shell`:
// node just-bash.mjs DIRECTORY_WITH_NODE_MODULES FILES SCRIPT ROUNDS
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const [, , modules, root, script, rounds] = process.argv;
const found = createRequire(join(modules, "x.js")).resolve("just-bash");
const { Bash } = await import(pathToFileURL(found));

const files = {};
for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  files["/workspace/" + relative(root, path)] = readFileSync(path, "latin1");
}
const bash = new Bash({
  files,
  cwd: "/workspace",
  executionLimits: { maxCommandCount: 1e9, maxLoopIterations: 1e9, maxAwkIterations: 1e9, maxSedIterations: 1e9, maxStringLength: 1e9 },
});
const times = [];
for (let i = 0; i < Number(rounds); i++) {
  const begun = performance.now();
  const done = await bash.exec(script);
  if (done.exitCode !== 0) throw new Error(done.stderr);
  times.push(performance.now() - begun);
}
times.sort((a, b) => a - b);
console.log(times[times.length >> 1]);
