// The record: what happened, and its proof, which this browser checks with code of its own; forged ones turn red.

import { readFile, writeFile } from "node:fs/promises";
import { assert, facts, go, heading, open, overflow, run } from "./browser.mjs";

const verdict = (page) => page.locator(".verdict");

async function pin(page, key) {
    await page.getByLabel("The log's verifier key").fill(key);
    await page.getByRole("button", { name: "Remember this key" }).click();
}

/** The page of the record with the key remembered, and the answer with its proof changed. */
async function openWith(change) {
    const page = await open();
    await page.route("**/proof", async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: change(await response.body()) });
    });
    await go(page, `/record/${facts.leaf}`);
    await pin(page, facts.key);
    await page.locator(".steps .step").first().waitFor();
    return page;
}

await run({
    "the page says what happened": async () => {
        const page = await open();
        await go(page, `/record/${facts.leaf}`);
        assert.equal(await heading(page), facts.event);
        const text = await page.locator("main").innerText();
        for (const part of ["What happened", "As it was published", "EXECUTION_STARTED", "BRM-CTO"]) assert.ok(text.includes(part), part);
    },
    "the address of an event leads to its record": async () => {
        const page = await open();
        await go(page, `/event/${facts.event}`);
        assert.match(page.url(), new RegExp(`/record/${facts.leaf}$`));
    },
    "a good proof is proven once the visitor has given the key, and the key is remembered": async () => {
        const page = await open();
        await go(page, `/record/${facts.leaf}`);
        await verdict(page).filter({ hasText: "Give the log's verifier key" }).waitFor();
        await pin(page, facts.key);
        await verdict(page).filter({ hasText: "Proven: every step holds." }).waitFor();
        assert.equal(await page.locator(".step.bad, .step.open").count(), 0);
        await page.reload();
        await verdict(page).filter({ hasText: "Proven: every step holds." }).waitFor();
    },
    "another key proves nothing, and is not taken over in silence": async () => {
        const page = await open();
        await go(page, `/record/${facts.leaf}`);
        await pin(page, facts.otherKey);
        await verdict(page).filter({ hasText: "Not proven" }).waitFor();
        await page.getByRole("button", { name: "Change the key" }).click();
        await pin(page, facts.key);
        await page.getByRole("alert").filter({ hasText: "not the key that you remembered" }).waitFor();
        await verdict(page).filter({ hasText: "Not proven" }).waitFor();
        await page.getByRole("button", { name: "Replace it" }).click();
        await verdict(page).filter({ hasText: "Proven: every step holds." }).waitFor();
    },
    "each line of a proof that is changed turns it red, and the step is named": async () => {
        const lines = facts.proofLines;
        for (let number = 0; number < lines; number += 1) {
            const page = await openWith((proof) => {
                const changed = proof.toString("latin1").split("\n");
                // A character in the middle of the line becomes another.
                const line = changed[number];
                if (line === "") return proof;
                const at = Math.floor(line.length / 2);
                changed[number] = line.slice(0, at) + (line[at] === "A" ? "B" : "A") + line.slice(at + 1);
                return Buffer.from(changed.join("\n"), "latin1");
            });
            if ((await verdict(page).innerText()).startsWith("Proven")) {
                console.log(`line ${number} could be changed`);
                assert.ok(facts.emptyLines.includes(number), `line ${number} could be changed`);
            } else {
                assert.match(await verdict(page).innerText(), /Not proven: ./);
                assert.ok(await page.locator(".step.bad").count() > 0);
            }
            await page.context().close();
        }
    },
    "a page that shows other bytes than were logged turns red": async () => {
        const page = await open();
        await page.route(`**/record/${facts.leaf}`, async (route) => {
            const response = await route.fetch();
            const text = await response.text();
            assert.ok(text.includes("EXECUTION_STARTED"));
            await route.fulfill({ response, body: text.replaceAll("EXECUTION_STARTED", "EXECUTION_STOPPED") });
        });
        await go(page, `/record/${facts.leaf}`);
        await pin(page, facts.key);
        await verdict(page).filter({ hasText: "Not proven" }).waitFor();
    },
    "the page to be kept checks a file with no network at all": async () => {
        const page = await open();
        await go(page, `/record/${facts.leaf}`);
        const save = async (name) => {
            const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name }).click()]);
            return download.path();
        };
        const proof = await save("Download the proof");
        const verifier = `${facts.folder}/verifier.html`;
        await writeFile(verifier, await readFile(await save("Check it offline")));
        const offline = await open({ offline: true, width: 360 });
        await offline.goto(`file://${verifier}`);
        await pin(offline, facts.key);
        await offline.locator("#proof-file").setInputFiles(proof);
        await verdict(offline).filter({ hasText: "Proven: every step holds." }).waitFor();
        assert.ok((await offline.locator("main").innerText()).includes(facts.event));
        assert.deepEqual(await overflow(offline), []);
        const forged = `${facts.folder}/forged.tlog-proof`;
        const bytes = await readFile(proof, "latin1");
        await writeFile(forged, bytes.replace(/\nindex (\d+)/, (_, index) => `\nindex ${Number(index) + 1}`), "latin1");
        await offline.locator("#proof-file").setInputFiles(forged);
        await verdict(offline).filter({ hasText: "Not proven" }).waitFor();
    },
    "a record that is not there says so": async () => {
        const page = await open();
        assert.equal((await page.goto("/record/999999999")).status(), 404);
        await page.getByRole("alert").waitFor();
    },
});
