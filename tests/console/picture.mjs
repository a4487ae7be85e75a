// The picture in README: the list of sessions of a small site. It is in target/console, and with UPDATE_PICTURE in
// docs.

import assert from "node:assert/strict";
import { copyFile, mkdir, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, listed } from "./console.mjs";
import { OPERATOR, VIEWER, device, fleet, logIn } from "./server.mjs";

const BYTES_MAX = 200_000;
const shown = fileURLToPath(new URL("../../docs/console.png", import.meta.url));
const made = fileURLToPath(new URL("../../target/console/picture.png", import.meta.url));

script(async () => {
  const mowers = await fleet("mower", 9);
  const gateways = await fleet("gateway", 3);
  const pump = await device("pump-7");
  await logIn(VIEWER);
  for (const [index, { run }] of [...mowers, ...gateways].entries()) {
    for (let count = 0; count < (index * 7) % 12; count += 1) await run("diag.ping");
  }
  await pump.leave();
  await mowers[4].leave();
  const page = await at(`${SESSIONS}?state=all`, OPERATOR, {
    viewport: { width: 1280, height: 720 },
    colorScheme: "light",
  });
  await until("all are listed", async () => (await listed(page)).length >= 15);

  step("the picture");
  await mkdir(new URL(".", `file://${made}`), { recursive: true });
  await page.screenshot({ path: made });
  const { size } = await stat(made);
  assert.ok(size > 10_000 && size <= BYTES_MAX, `${size} bytes`);
  if (process.env.UPDATE_PICTURE) await copyFile(made, shown);
  assert.ok((await stat(shown)).size <= BYTES_MAX);
});
