// Eight tabs follow by one stream, though a browser has six connections to a host; the next takes over when the one
// that has the stream goes. A hidden tab has none, and what it has missed when it is seen again.

import assert from "node:assert/strict";

import { script, step, until } from "./browser.mjs";
import { SESSIONS, at, hide, isLive, lists, streams } from "./console.mjs";
import { OPERATOR, device } from "./server.mjs";

const TABS = 8;
const path = `${SESSIONS}?kind=application&sort=whoAmI`;

script(async () => {
  const first = await at(path, OPERATOR);
  const context = first.context();
  const open = streams(context);
  await first.reload();
  const pages = [first];
  step(`${TABS} tabs`);
  while (pages.length < TABS) {
    const page = await context.newPage();
    await page.goto(path);
    pages.push(page);
  }
  await Promise.all(pages.map(isLive));
  const names = ["tab-1"];
  await device("tab-1");
  await Promise.all(pages.map((page) => lists(page, names)));
  assert.equal(open(), 1);

  step("one that shows something else");
  const other = await context.newPage();
  await other.goto(`${SESSIONS}?query=tab-2`);
  await isLive(other);

  step("the one with the stream goes");
  await first.close();
  await until("another has it", () => open() === 1);
  await device("tab-2");
  names.push("tab-2");
  const rest = pages.slice(1);
  await Promise.all([...rest.map((page) => lists(page, names)), lists(other, ["tab-2"])]);
  await until("only one has it", () => open() === 1);

  step("none is seen");
  await Promise.all([...rest, other].map((page) => hide(page, true)));
  await until("no stream is open", () => open() === 0);
  await device("tab-3");
  names.push("tab-3");
  assert.equal(open(), 0);
  await hide(rest[2], false);
  await lists(rest[2], names);
  await until("the stream is open again", () => open() === 1);
});
