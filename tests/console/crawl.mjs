// Every screen below an address that links lead to can be read by everybody: one of each kind, with and without what
// is listed.
//
//     node tests/console/crawl.mjs HTTP_URL TCP_ADDRESS START [BELOW]

import assert from "node:assert/strict";

import { isAccessible, script, step, takeFaults, url } from "./browser.mjs";
import { at } from "./console.mjs";
import { OPERATOR, device, logIn } from "./server.mjs";

const start = process.argv[4];
const below = process.argv[5] ?? start;

/** Of screens that show different things of one kind, one is enough. */
const SCREENS_MAX = 40;

/** Somebody and something of each kind. */
async function fill() {
  const call = await logIn(OPERATOR);
  const busy = await device("crawl-1");
  const commands = [
    ["property.publish", { key: "temperature", value: 21.5 }],
    ["property.publish", { key: "temperature", value: 22.5 }],
    ["attribute.publish", { key: "firmware", value: "<b>1.0</b>" }],
    ["alarm.publish", { key: "blade", state: 1, msg: "stuck" }],
    ["location.publish", { lat: 48.2, lng: 16.37 }],
    ["log.publish", { msg: "started" }],
    ["file.put", { fileName: "map.txt" }],
  ];
  for (const [command, params] of commands) {
    const reply = await busy.run(command, params);
    assert.ok(reply.cmd.success, `${command}: ${JSON.stringify(reply)}`);
  }
  await (await device("crawl-2")).leave();
  await call("user.token.create", { name: "crawl" });
}

/** What kind of screen an address shows: ids and keys are all the same. */
function kind(address) {
  const { pathname, searchParams } = new URL(address, url);
  const parts = pathname.split("/").map((part, index, all) => {
    const isKey = ["things", "invites", "tokens", "mails"].includes(all[index - 1]) && part;
    return isKey || /^[0-9a-f-]{24,}$/.test(part) ? "*" : part;
  });
  const names = [...new Set(searchParams.keys())].filter((name) => searchParams.get(name));
  return `${parts.join("/")}?${names.sort()}`;
}

script(async () => {
  await fill();
  const page = await at(start, OPERATOR);
  const [waiting, seen] = [[start], new Set()];
  while (waiting.length) {
    const address = waiting.shift();
    if (seen.has(kind(address))) continue;
    seen.add(kind(address));
    assert.ok(seen.size <= SCREENS_MAX, `no end of screens: ${[...seen]}`);
    step(address);
    const answer = await page.goto(address);
    assert.equal(answer.status(), 200, address);
    await isAccessible(page, address);
    assert.deepEqual(takeFaults(), [], address);
    const links = await page.locator("main a[href]").evaluateAll((found) => {
      const here = found.filter((link) => !link.hasAttribute("download"));
      return here.map((link) => link.getAttribute("href"));
    });
    for (const link of links) {
      const target = new URL(link, page.url());
      const isPage = !/\/(dump|file)$/.test(target.pathname);
      if (target.pathname.startsWith(below) && isPage) waiting.push(target.pathname + target.search);
    }
  }
  assert.ok(seen.size >= 2, `nothing is linked from ${start}`);
  console.log(`- ${seen.size} screens`);
});
