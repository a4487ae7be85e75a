// The other scripts can fail: what a page must not do is seen.

import assert from "node:assert/strict";
import { inspect } from "node:util";

import { overflow, profile, script, step, takeFaults, until, violations } from "./browser.mjs";

const POLICY = "default-src 'self'; img-src 'self' data:";

let page;

/** Shows a page with this body, as if the server had sent it. */
async function show(body) {
  await page.unrouteAll();
  await page.route("**/wrong", (route) =>
    route.fulfill({
      contentType: "text/html; charset=utf-8",
      headers: { "content-security-policy": POLICY },
      body: `<!DOCTYPE html><html lang="en"><title>Wrong</title><main><h1>Wrong</h1>${body}</main></html>`,
    }),
  );
  await page.goto("/wrong");
}

async function isSeen(what, body, pattern) {
  step(what);
  await show(body);
  const found = [];
  await until(`${what} ${pattern}`, () => {
    found.push(...takeFaults());
    return found.some(([, text]) => pattern.test(text)) || assert.fail(inspect(found));
  });
}

script(async () => {
  page = await (await profile()).newPage();
  step("nothing wrong");
  await show("<p>Nothing.</p>");
  assert.deepEqual(await violations(page), []);
  assert.equal(await overflow(page), 0);
  assert.deepEqual(takeFaults(), []);

  await isSeen("an inline script", "<script>1</script>", /Content Security Policy/i);
  await isSeen("an inline style", '<p style="color: red">red</p>', /Content Security Policy/i);
  await isSeen("a missing style sheet", '<link rel="stylesheet" href="/gone.css">', /gone\.css/);
  await isSeen("another host", '<img alt="" src="http://192.0.2.1/x.png">', /Content Security Policy|another host/i);

  step("what axe looks for");
  await show('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">');
  assert.deepEqual((await violations(page)).map(({ rule }) => rule), ["image-alt"]);

  step("a page that is too wide");
  await show("<pre>" + "wide ".repeat(200) + "</pre>");
  assert.ok((await overflow(page)) > 100);

  step("an error in a script");
  takeFaults();
  await page.addInitScript(() => queueMicrotask(() => missing()));
  await page.goto("/docs");
  await until("it is noted", () => takeFaults().some(([, text]) => text.includes("missing is not")));
});
