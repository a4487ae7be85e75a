// What is done on the page of a thing, with JavaScript and without: files go up and down and are deleted, a method
// runs and its answer is seen, a ban is made and lifted.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { isAccessible, provokes, script, step, until } from "./browser.mjs";
import { at } from "./console.mjs";
import { OPERATOR, device, logIn } from "./server.mjs";

const BYTES = Buffer.from(Array.from({ length: 5000 }, (_, index) => (index * 7) % 251));

/** Runs the flow on the page of a thing. */
async function acts(key, javaScriptEnabled) {
  const mower = await device(key);
  const path = `/o/basic-org/things/${key}`;
  const page = await at(path, OPERATOR, { javaScriptEnabled, acceptDownloads: true });
  const heading = (name) => page.getByRole("heading", { name });
  // A dialog has what is a page otherwise.
  const shown = javaScriptEnabled ? page.getByRole("dialog") : page.locator("main");
  /** DevTools look at a page without scripts, too, but can't with axe. */
  const accessible = async (name) => {
    if (javaScriptEnabled) await isAccessible(page, name);
  };

  step(`${key}: a file goes up`);
  const form = page.locator("form").filter({ has: page.getByRole("button", { name: "Upload" }) });
  await form.locator("input[type=file]").setInputFiles({ name: "firm & wäre.bin", mimeType: "text/html", buffer: BYTES });
  await form.getByRole("button", { name: "Upload" }).click();
  const file = page.getByRole("row").filter({ hasText: "firm & wäre.bin" });
  await file.getByText("5,000 bytes").waitFor();
  await accessible("a file");

  step(`${key}: it comes down as it was`);
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    file.getByRole("link", { name: /^Download/ }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "firm & wäre.bin");
  assert.deepEqual(await readFile(await download.path()), BYTES);
  assert.ok(page.url().endsWith(path));

  step(`${key}: an address for a larger one`);
  await page.getByText("A larger file").click();
  await page.getByLabel("Its name").fill("large.bin");
  await page.getByRole("button", { name: "Make an address for it" }).click();
  const line = await page.locator("pre").innerText();
  const [, address] = line.match(/^curl -T FILE (http:\S+)$/) ?? [];
  assert.ok(address, line);
  await accessible("an address");
  assert.equal((await fetch(address, { method: "PUT", body: BYTES })).status, 200);
  await page.goto(path);
  await page.getByRole("row").filter({ hasText: "large.bin" }).getByText("5,000 bytes").waitFor();

  step(`${key}: it is deleted after a question`);
  await file.getByRole("link", { name: /^Delete/ }).click();
  await shown.getByRole("heading", { name: "Delete firm & wäre.bin?" }).waitFor();
  await accessible("a file's end");
  await shown.getByRole("button", { name: "Delete the file" }).click();
  await file.waitFor({ state: "detached" });

  step(`${key}: a method runs once, and its answer is seen`);
  await page.getByRole("link", { name: "Run a method…" }).click();
  await page.getByRole("textbox", { name: "Method" }).fill("cut");
  await page.getByLabel("Parameters, as JSON").fill('{"height": 3');
  const run = page.getByRole("button", { name: "Run it" });
  await run.click();
  await page.getByRole("alert").filter({ hasText: "not JSON" }).waitFor();
  await accessible("no JSON");
  assert.equal(await page.getByRole("textbox", { name: "Method" }).inputValue(), "cut");
  await page.getByLabel("Parameters, as JSON").fill('{"height": 3}');
  if (javaScriptEnabled) {
    // Who is impatient presses again while the answer is on its way.
    const sent = [];
    page.on("request", (request) => request.method() === "POST" && sent.push(request.url()));
    await page.route("**/run", (route) => setTimeout(() => route.continue(), 1000));
    await run.evaluate((button) => {
      button.click();
      setTimeout(() => button.click(), 200);
    });
    await page.getByText("The thing has not answered yet.").waitFor();
    assert.equal(sent.length, 1, `${sent}`);
    await page.unrouteAll();
  } else {
    await run.click();
  }
  await page.getByText("The thing has not answered yet.").waitFor();
  await accessible("a mail");
  const { cmd } = await mower.run("mailbox.check", {});
  assert.equal(cmd.params.messages.length, 1, JSON.stringify(cmd));
  const [{ id, params }] = cmd.params.messages;
  assert.deepEqual(params, { method: "cut", params: { height: 3 } });
  await page.getByRole("link", { name: "Look again" }).click();
  await page.getByText("in flight").first().waitFor();
  await mower.run("mailbox.ack", { id, params: { left: 4 } });
  // With the script the answer comes by itself.
  if (!javaScriptEnabled) await page.getByRole("link", { name: "Look again" }).click();
  else await page.mouse.click(1, 1);
  await page.getByText("completed ok").first().waitFor();
  await page.getByText('"left": 4').waitFor();
  await accessible("an answer");

  step(`${key}: it is banned and let in again`);
  await page.goto(path);
  await page.getByRole("link", { name: "Ban…" }).click();
  await shown.getByLabel("Why, for people").fill("stolen");
  await accessible("a ban");
  await shown.getByRole("button", { name: "Ban it" }).click();
  await mower.left;
  await page.getByText("Banned: stolen").waitFor();
  await page.getByRole("button", { name: "Lift the ban" }).click();
  await page.getByRole("link", { name: "Ban…" }).waitFor();

  step(`${key}: a trace`);
  await page.getByRole("link", { name: "Trace", exact: true }).click();
  await heading(/^Trace of/).waitFor();
  await page.getByRole("button", { name: "Begin" }).click();
  await page.getByText("tracing").first().waitFor();
  const again = await device(key);
  await again.run("diag.ping");
  await until("its frames are there", async () => {
    await page.getByRole("link", { name: "Look again" }).click();
    return page.getByText("from the thing").first().isVisible();
  });
  await accessible("a trace");
  await page.getByRole("button", { name: "End it" }).click();
  await page.getByText("ended").first().waitFor();

  step(`${key}: it is deleted`);
  await page.goto(path);
  await page.getByRole("link", { name: "Delete…" }).click();
  await shown.getByRole("button", { name: "Delete it with all it has" }).click();
  await page.waitForURL(/\/things$/);
}

script(async () => {
  const call = await logIn(OPERATOR);
  const def = { key: "mower", name: "Mower", methods: { cut: { name: "Cut" } } };
  await call("thing_def.create", def);
  // What a form says is wrong.
  provokes(/status of 400/);
  await acts("with-script", true);
  await acts("without-script", false);
});
