// Opens the console in Chromium for the tests. Whatever a page must never do fails the script: asking another host, breaking its
// own policy, or an error in its code.
//
//     node SCRIPT.mjs ADDRESS FACTS
//
// ADDRESS is where the console is, FACTS are the ids of what was published, as JSON.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const packages = createRequire(`${process.env.LEDGERD_TEST_BROWSER}/`);
const { chromium } = packages("playwright-core");
const AXE = readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");

export const [address, facts] = [process.argv[2], JSON.parse(process.argv[3] ?? "{}")];
export { assert };

const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"];
const PATIENCE_MS = 20_000;

let browser;
const faults = [];

/** A page in a profile of its own. */
export async function open({ dark = false, width = 1280, height = 900, script = true, timezone = "UTC", offline = false } = {}) {
    browser ??= await chromium.launch({ executablePath: process.env.LEDGERD_TEST_CHROMIUM, args: ARGUMENTS });
    const context = await browser.newContext({
        baseURL: address, colorScheme: dark ? "dark" : "light", viewport: { width, height }, javaScriptEnabled: script,
        timezoneId: timezone, acceptDownloads: true, reducedMotion: "reduce", offline,
    });
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    page.on("request", (request) => {
        const url = request.url();
        if (!url.startsWith(offline ? "file:" : `${address}/`) && !url.startsWith("blob:")) faults.push(`${page.url()} asks ${url}`);
    });
    page.on("console", (message) => {
        // A status that a test asks for is no fault of the page.
        if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
            faults.push(`${page.url()}: ${message.text()}`);
        }
    });
    page.on("pageerror", (error) => faults.push(`${page.url()}: ${error.stack}`));
    return page;
}

/** Goes to a page, which must be there. */
export async function go(page, path) {
    const response = await page.goto(path);
    assert.equal(response.status(), 200, path);
    return response;
}

export async function heading(page) {
    return (await page.locator("main h1").first().innerText()).trim();
}

/** What axe finds wrong with the page, a line each. */
export async function accessibilityFindings(page) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" | ")}`);
}

/** How far the page is wider than its window, and what sticks out. */
export async function overflow(page) {
    return page.evaluate(() => {
        const width = document.documentElement.clientWidth;
        const excess = document.scrollingElement.scrollWidth - width;
        const isOut = (element) => element.getBoundingClientRect().right > width + 1;
        return excess > 0 ? [...document.body.querySelectorAll("*")].filter(isOut).slice(0, 5).map((it) => it.outerHTML.slice(0, 200)) : [];
    });
}

/** Runs the checks one after another, and ends the process. */
export async function run(checks) {
    let failed = 0;
    for (const [name, check] of Object.entries(checks)) {
        try {
            await check();
            assert.deepEqual(faults.splice(0), []);
            console.log(`ok: ${name}`);
        } catch (error) {
            failed += 1;
            console.log(`FAILED: ${name}: ${error.stack}`);
        }
    }
    await browser?.close();
    process.exit(failed === 0 ? 0 : 1);
}
