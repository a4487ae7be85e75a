// A page that follows a list for long stays small.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, listed } from "./console.mjs";
import { figures } from "./figures.mjs";
import { OPERATOR, fleet } from "./server.mjs";

const HEAP_MAX = 5_000_000;
const ROUNDS = 6;

script(async () => {
  await fleet("stays", 60);
  const page = await at(`${SESSIONS}?kind=application&sort=-startTime`, OPERATOR);
  await isLive(page);
  const heaps = [];
  for (let round = 1; round <= ROUNDS; round += 1) {
    step(`round ${round}`);
    const devices = await fleet(`round-${round}`, 40);
    for (const { run } of devices) await run("diag.ping");
    await until("they are seen", async () => (await listed(page))[0] === `round-${round}-40`);
    await Promise.all(devices.map(({ leave }) => leave()));
    await until("they are gone", async () => (await listed(page))[0] === "stays-60");
    heaps.push((await figures(page)).heap);
  }
  console.log(`- heap after each round: ${heaps.join(", ")} bytes`);
  assert.ok(Math.max(...heaps) <= HEAP_MAX, `${heaps}`);
  const { nodes } = await figures(page);
  assert.ok(nodes < 10_000, `${nodes} nodes`);
});
