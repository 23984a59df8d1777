// The timeline: what it shows, each of its filters, its pages, its files, and what arrives while it is open.

import { readFile } from "node:fs/promises";
import { assert, facts, go, heading, open, run } from "./browser.mjs";

const rows = (page) => page.locator("main table tbody tr");
const texts = (page) => rows(page).evaluateAll((all) => all.map((row) => row.innerText));

/** What is left when the form is sent with this field. */
async function filtered(label, value) {
    const page = await open();
    await go(page, "/timeline");
    const field = page.locator("form.filters label").filter({ hasText: new RegExp(`^${label.replace(/[()]/g, "\\$&")}`) }).locator("input, select");
    if (await field.evaluate((element) => element.tagName) === "SELECT") await field.selectOption(value);
    else await field.fill(value);
    await Promise.all([page.waitForURL(/\?/), page.getByRole("button", { name: "Filter" }).click()]);
    assert.equal(await field.inputValue(), value, "the form keeps what was asked");
    return [page, await texts(page)];
}

await run({
    "it shows what was recorded, with its time, agent, action and outcome": async () => {
        const page = await open();
        await go(page, "/timeline?actor=BRM-CTO");
        assert.equal(await heading(page), "Timeline");
        const text = await rows(page).filter({ hasText: "EXECUTION_STARTED" }).first().innerText();
        assert.match(text, /UTC/);
        assert.match(text, /BRM-CTO/);
        assert.match(text, /SUCCESS/);
    },
    "no line stands there twice": async () => {
        const page = await open();
        for (const path of ["/timeline", "/timeline?outcome=rejected", "/timeline?lane=TRAIL", "/timeline?actor=SRN-CIO"]) {
            await go(page, path);
            const leaves = await rows(page).evaluateAll((all) => all.map((row) => row.dataset.leaf));
            assert.ok(leaves.length > 0, path);
            assert.deepEqual(leaves, [...new Set(leaves)], path);
        }
    },
    "an agent's name leads to what it did": async () => {
        const page = await open();
        await go(page, "/timeline");
        await rows(page).getByRole("link", { name: "BRM-CTO" }).first().click();
        await page.waitForURL(/actor=/);
        const left = await texts(page);
        assert.ok(left.length > 0 && left.every((text) => text.includes("BRM-CTO")), left.join("\n"));
    },
    "the filter of the agent leaves its lines alone, and can be taken away": async () => {
        const [page, left] = await filtered("Agent", "SRN-CIO");
        assert.ok(left.length > 0 && left.every((text) => text.includes("SRN-CIO")), left.join("\n"));
        await page.getByRole("link", { name: /Remove the filter actor/ }).click();
        await page.waitForURL(/\/timeline$/);
    },
    "the filter of the task leaves one task": async () => {
        const [, left] = await filtered("Task", facts.task);
        assert.ok(left.length > 0 && left.every((text) => text.includes(facts.task)), left.join("\n"));
    },
    "the filter of the lane leaves one lane": async () => {
        const [, left] = await filtered("Lane", "VOTE");
        assert.ok(left.length > 0, "there are votes");
        assert.ok(left.every((text) => /VOTE_RECORDED|details_mismatch|not valid|reject/i.test(text)), left.join("\n"));
    },
    "the filter of the outcome leaves one outcome": async () => {
        const [, left] = await filtered("Outcome", "BLOCKED");
        assert.ok(left.length > 0 && left.every((text) => text.includes("BLOCKED")), left.join("\n"));
    },
    "nothing is older than the beginning, nor newer than tomorrow": async () => {
        for (const [label, value] of [["Before (UTC)", "2000-01-01"], ["Since (UTC)", "2999-01-01"]]) {
            const [page, left] = await filtered(label, value);
            assert.deepEqual(left, [], label);
            assert.match(await page.locator("main .empty").innerText(), /Nothing matches/);
        }
        for (const [label, value] of [["Since (UTC)", "2000-01-01"], ["Before (UTC)", "2999-01-01"]]) {
            assert.ok((await filtered(label, value))[1].length > 0, label);
        }
    },
    "what cannot be understood is told, with what to write": async () => {
        const page = await open();
        const response = await page.goto("/timeline?since=yesterday");
        assert.equal(response.status(), 400);
        assert.match(await page.getByRole("alert").innerText(), /since/);
    },
    "older pages go on where the page before ended, and lead back": async () => {
        const page = await open();
        await go(page, "/timeline");
        const first = await texts(page);
        await Promise.all([page.waitForURL(/cursor=/), page.getByRole("link", { name: "Older" }).click()]);
        const second = await texts(page);
        assert.ok(second.length > 0 && second.every((text) => !first.includes(text)), "no line is on both");
        await Promise.all([page.waitForURL(/\/timeline$/), page.getByRole("link", { name: "Newest" }).click()]);
        assert.deepEqual(await texts(page), first);
    },
    "the lines can be taken away as a file": async () => {
        const page = await open();
        await go(page, "/timeline?actor=SRN-CIO");
        const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
        const text = await readFile(await download.path(), "utf8");
        const [head, ...lines] = text.trim().split("\n");
        assert.match(head, /^leaf_index,time,actor/);
        assert.ok(lines.length > 0 && lines.every((line) => line.split(",")[2] === "SRN-CIO"), text.slice(0, 500));
    },
    "the visitor's own time stands beside UTC": async () => {
        const page = await open({ timezone: "Asia/Kolkata" });
        await go(page, "/timeline");
        assert.match(await rows(page).first().locator("time").innerText(), /UTC\s*.*\d\d:\d\d here/s);
    },
    "what is published appears without a reload": async () => {
        const page = await open();
        await go(page, "/timeline?actor=WRK-006");
        await page.evaluate(() => { globalThis.wasNotReloaded = true; });
        console.log("ready: publish");
        await rows(page).filter({ hasText: facts.awaited }).first().waitFor();
        assert.ok(await page.evaluate(() => globalThis.wasNotReloaded));
        assert.match(await page.getByRole("status").innerText(), /1 new line/);
    },
});
