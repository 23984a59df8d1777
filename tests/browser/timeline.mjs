// The timeline: what it shows, its filters, its pages, and what arrives while it is open.

import { assert, facts, go, heading, open, run } from "./browser.mjs";

const rows = (page) => page.locator("main table tbody tr");

await run({
    "it shows what was recorded, with its time, agent, action and outcome": async () => {
        const page = await open();
        await go(page, "/timeline");
        assert.equal(await heading(page), "Timeline");
        const text = await rows(page).filter({ hasText: facts.actor }).first().innerText();
        assert.match(text, /UTC/);
        assert.match(text, /EXECUTION_STARTED/);
        assert.match(text, /SUCCESS/);
    },
    "an agent's name leads to what it did": async () => {
        const page = await open();
        await go(page, "/timeline");
        await page.getByRole("link", { name: facts.actor }).first().click();
        await page.waitForURL(/actor=/);
        const actors = await rows(page).evaluateAll((all) => all.map((row) => row.innerText));
        assert.ok(actors.length > 0 && actors.every((text) => text.includes(facts.actor)), actors.join("\n"));
    },
});
