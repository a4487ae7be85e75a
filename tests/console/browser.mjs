// What the scripts of this folder share: a browser, what a page must never do, what is waited for, and the
// pictures that a failure leaves in target/console.
//
//     node tests/console/SCRIPT.mjs HTTP_URL TCP_ADDRESS
//
// tests/server/console_browser.rs starts a server and then the script, which prints a line for each step and
// `passed` at its end. playwright-core and axe-core are where tests/run installs them.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";

const outside = new URL("../../target/outside/", import.meta.url);
const artefacts = fileURLToPath(new URL("../../target/console/", import.meta.url));
const require = createRequire(outside);
const { chromium, errors } = require("playwright-core");

/** Long enough for anything that happens at once on a busy machine. */
export const SOON_MS = 20_000;

/** Longer than any script takes. */
const SCRIPT_MS = 300_000;

/** The server, as the command line names it. */
export const url = process.argv[2];
export const tcp = process.argv[3];

const ARGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--force-color-profile=srgb",
];

const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 360, height: 740 };

/** What happened in pages that must not happen: [a page's URL, what]. */
const faults = [];
/** Faults that a script provokes. */
const provoked = [];
let browser;

/** Says what is done next; the last one is named by a failure. */
export function step(what) {
  console.log(`- ${what}`);
}

/** Runs a script to its end, with a browser. What is open when it fails is kept as pictures. */
export async function script(body) {
  let failure = null;
  const timer = setTimeout(() => end(new Error(`not done after ${SCRIPT_MS} ms`)), SCRIPT_MS);
  const end = async (why) => {
    clearTimeout(timer);
    if (why) {
      console.error(inspect(why));
      await keepPages().catch((error) => console.error(`no pictures: ${error}`));
    }
    await browser?.close().catch(() => {});
    process.exit(why ? 1 : 0);
  };
  try {
    browser = await chromium.launch({
      executablePath: "/usr/bin/chromium",
      args: ARGS,
      timeout: 3 * SOON_MS,
    });
    await body();
    const left = takeFaults();
    assert.deepEqual(left, [], "what pages must not do");
  } catch (error) {
    failure = error;
  }
  if (!failure) console.log("passed");
  await end(failure);
}

/**
 * A new browser profile: `javaScriptEnabled`, `colorScheme`, and what else Playwright calls a context's options.
 * What its pages must not do is noted.
 */
export async function profile(options = {}) {
  const context = await browser.newContext({ viewport: WIDE, baseURL: url, ...options });
  context.setDefaultTimeout(SOON_MS);
  context.on("weberror", (error) => fault(error.page()?.url(), String(error.error())));
  // What a Content-Security-Policy forbids is an error of the console, too.
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) fault(message.page()?.url(), message.text());
  });
  context.on("request", (request) => {
    const target = new URL(request.url());
    const isOwn = target.origin === new URL(url).origin || ["data:", "blob:"].includes(target.protocol);
    if (!isOwn) fault(request.url(), "a request to another host");
  });
  context.on("response", (response) => {
    if (response.status() >= 500) fault(response.url(), `status ${response.status()}`);
  });
  return context;
}

function fault(where, what) {
  if (!provoked.some((pattern) => pattern.test(what))) faults.push([where, what]);
}

/** Faults whose text is like this are what the script is about. */
export function provokes(pattern) {
  provoked.push(pattern);
}

/** What pages have done that they must not, which is forgotten then. */
export function takeFaults() {
  return faults.splice(0);
}

/** Waits until something holds; what it last was, if it never does. */
export async function until(what, holds) {
  const end = performance.now() + SOON_MS;
  for (let last; ; ) {
    try {
      last = await holds();
      if (last) return last;
    } catch (error) {
      if (!(error instanceof assert.AssertionError || error instanceof errors.TimeoutError)) throw error;
      last = error;
    }
    assert.ok(performance.now() < end, `never: ${what}; last: ${inspect(last)}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

let axeSource;

/** The violations that axe finds in a page. */
export async function violations(page) {
  axeSource ??= await readFile(new URL("node_modules/axe-core/axe.min.js", outside), "utf8");
  // Neither is held by the page's policy: DevTools run them.
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() =>
    axe.run(document, { resultTypes: ["violations"] }),
  );
  const nodes = (found) => found.slice(0, 5).map((node) => `${node.html}: ${node.failureSummary}`);
  return violations.map((found) => ({ rule: found.id, help: found.help, nodes: nodes(found.nodes) }));
}

/** How much wider than the window a page is. */
export function overflow(page) {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth - clientWidth;
  });
}

/** A page can be read by everybody: light and dark, wide and 360 px wide, where nothing scrolls sideways. */
export async function isAccessible(page, name) {
  const looks = [["light", WIDE], ["dark", WIDE], ["dark", NARROW], ["light", NARROW]];
  for (const [colorScheme, size] of looks) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(size);
    const where = `${name}, ${colorScheme}, ${size.width} px`;
    assert.deepEqual(await violations(page), [], where);
    assert.equal(await overflow(page), 0, `${where}: wider than the window`);
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize(WIDE);
}

/** Writes what there is to see, for whoever looks why a script failed. */
async function keepPages() {
  const pages = browser?.contexts().flatMap((context) => context.pages()) ?? [];
  await mkdir(artefacts, { recursive: true });
  const name = basename(process.argv[1], ".mjs");
  for (const [index, page] of pages.entries()) {
    const file = `${artefacts}${name}-${index + 1}`;
    await writeFile(`${file}.html`, await page.content());
    await page.screenshot({ path: `${file}.png`, timeout: SOON_MS });
    console.error(`${page.url()}: ${file}.png`);
  }
  for (const [where, what] of faults) console.error(`${where}: ${what}`);
}
