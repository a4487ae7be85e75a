// Pages that are no lists, and are live: the overview, the figures above the list of sessions, and a thing.

import assert from "node:assert/strict";

import { isAccessible, provokes, script, step, until } from "./browser.mjs";
import { SESSIONS, at, isLive, streams } from "./console.mjs";
import { OPERATOR, device, logIn } from "./server.mjs";

const isSame = (page) => page.evaluate(() => window.isSame === true);

async function follows(page) {
  await isLive(page);
  await page.evaluate(() => (window.isSame = true));
}

script(async () => {
  const call = await logIn(OPERATOR);
  const mower = await device("mower-1");
  await mower.run("property.publish", { key: "temp", value: 20 });
  await mower.run("alarm.publish", { key: "blade", state: 1, msg: "A long message. ".repeat(8) });
  const things = await at("/o/basic-org/things/mower-1", OPERATOR);
  const open = streams(things.context());
  await things.reload();
  const overview = await things.context().newPage();
  await overview.goto("/o/basic-org/");
  const list = await things.context().newPage();
  await list.goto(`${SESSIONS}?kind=user`);
  const strip = await things.context().newPage();
  await strip.goto(SESSIONS);
  const pages = [things, overview, list, strip];
  await Promise.all(pages.map(follows));
  assert.equal(open(), 1, "one stream for all");

  step("values and alarms of a thing");
  const value = (name) => things.getByRole("row").filter({ has: things.getByText(name, { exact: true }) });
  await things.locator("details summary").first().click();
  const link = things.getByRole("link", { name: "temp", exact: true });
  await link.focus();
  await mower.run("property.publish", { key: "temp", value: 21.5 });
  await mower.run("property.publish", { key: "speed", value: 3 });
  await value("temp").getByText("21.5").waitFor();
  await value("speed").getByText("3", { exact: true }).waitFor();
  assert.ok(await link.evaluate((link) => link === document.activeElement), "the focus stays");
  assert.ok(await things.locator("details").first().evaluate((details) => details.open), "what was opened stays open");
  await mower.run("alarm.publish", { key: "blade", state: 0, msg: "free" });
  await value("blade").getByText("free").waitFor();

  step("its mailbox");
  await call("method.exec", { thingKey: "mower-1", method: "cut", ackTimeout: 0 });
  await value("cut").getByText("new", { exact: true }).waitFor();
  const { cmd } = await mower.run("mailbox.check", {});
  await mower.run("mailbox.ack", { id: cmd.params.messages[0].id });
  await value("cut").getByText("completed ok").waitFor();

  step("figures of those who connect and leave");
  const other = await device("other-1");
  await strip.getByRole("link", { name: "tcp 2" }).waitFor();
  await overview.getByRole("link", { name: "tcp 2" }).waitFor();
  await other.leave();
  await mower.leave();
  await things.getByText("not connected").waitFor();
  await until("its connection has ended", async () => {
    const texts = await things.getByRole("table", { name: "Connections" }).innerText();
    return /logged out|connection lost/.test(texts) || assert.fail(texts);
  });
  await strip.getByRole("link", { name: /^(connection lost|logged out) 2/ }).waitFor();
  await overview.getByRole("link", { name: /^(connection lost|logged out) 2/ }).waitFor();

  step("nothing was loaded again");
  for (const page of pages) assert.ok(await isSame(page), page.url());
  await isAccessible(things, "a thing that is live");
  await isAccessible(overview, "an overview that is live");

  step("a thing that is deleted says so");
  provokes(/status of 404/);
  await call("thing.delete", { key: "mower-1" });
  await things.getByRole("heading", { name: /No thing has the key/ }).waitFor();
});
