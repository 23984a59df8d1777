// Takes pictures of the console's screens: node screenshots.mjs ADDRESS FOLDER PICTURES
//
// PICTURES is a JSON list of {name, path, dark, width, height, key}: `key` is the log's verifier key, where a proof is shown verified.

import { createRequire } from "node:module";

const [address, folder, pictures] = process.argv.slice(2);
const packages = createRequire(`${process.env.LEDGERD_TEST_BROWSER}/`);
const { chromium } = packages("playwright-core");

const browser = await chromium.launch({
    executablePath: process.env.LEDGERD_TEST_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"],
});
try {
    for (const { name, path, dark = false, width = 1280, height = 800, key } of JSON.parse(pictures)) {
        const context = await browser.newContext({
            baseURL: address, colorScheme: dark ? "dark" : "light", viewport: { width, height }, reducedMotion: "reduce",
        });
        const page = await context.newPage();
        const response = await page.goto(path);
        if (response.status() !== 200) throw new Error(`${path} answers ${response.status()}`);
        if (key !== undefined) {
            await page.getByLabel("The log's verifier key").fill(key);
            await page.getByRole("button", { name: "Remember this key" }).click();
            await page.locator(".verdict").filter({ hasText: "Proven" }).waitFor({ timeout: 20_000 });
            await page.evaluate(() => scrollTo(0, 0));
        }
        await page.screenshot({ path: `${folder}/${name}.png` });
        await context.close();
    }
} finally {
    await browser.close();
}
