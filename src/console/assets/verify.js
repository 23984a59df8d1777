// Checks a proof (c2sp.org/tlog-proof@v1) of a ledger's entry with what the browser has: SHA-256 and Ed25519 of WebCrypto.
// It shares nothing with the program that made the proof. It asks nobody, and touches no page.
"use strict";

const LedgerProof = (() => {
    const EXTRA_BYTES_MAX = 32 * 1024 * 1024;
    const NOTE_BYTES_MAX = 1000000;
    const FILE_BYTES_MAX = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX;
    const SIGNATURES_MAX = 100;
    const PATH_MAX = 64;
    const KEY_NAME_BYTES_MAX = 255;
    const U64_MAX = 2n ** 64n - 1n;
    const I64_MAX = 2n ** 63n - 1n;
    const LOG_KEY = 1;
    const WITNESS_KEY = 4;
    // As Unicode has it: the specification forbids spaces in the names of keys.
    const SPACE_PLUS_OR_CONTROL = /[\0-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/u;
    // The points of Ed25519 under which anything is signed, without their sign bit.
    const WEAK_POINTS = new Set([
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]);

    // What is wrong with a proof, in a sentence. Anything else that is thrown is a fault of this script.
    class Fault extends Error {}

    const expect = (condition, sentence) => {
        if (!condition) throw new Fault(sentence);
    };

    // --- Bytes and texts -------------------------------------------------------------------------------------------------

    const utf8 = (text) => new TextEncoder().encode(text);

    const text = (bytes, what) => {
        try {
            return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
        } catch {
            throw new Fault(`${what} is not UTF-8`);
        }
    };

    const concat = (...parts) => {
        const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
        let at = 0;
        for (const part of parts) {
            whole.set(part, at);
            at += part.length;
        }
        return whole;
    };

    const equal = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

    const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

    // RFC 4648 with padding; each value has one spelling.
    const base64 = (encoded) => {
        if (encoded.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded)) return null;
        let binary;
        try {
            binary = atob(encoded);
        } catch {
            return null;
        }
        const bytes = new Uint8Array(binary.length);
        for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
        // Bits that no byte needs must be zero.
        const last = encoded.endsWith("==") ? bytes.slice(-1) : bytes.slice(-2);
        return encoded.endsWith("=") && btoa(String.fromCharCode(...last)) !== encoded.slice(-4) ? null : bytes;
    };

    const decimal = (digits) => {
        if (!/^(0|[1-9][0-9]{0,19})$/.test(digits)) return null;
        const number = BigInt(digits);
        return number <= U64_MAX ? number : null;
    };

    const hash = (encoded) => {
        const bytes = base64(encoded);
        return bytes !== null && bytes.length === 32 ? bytes : null;
    };

    const number = (bytes) => BigInt.asIntN(bytes.length * 8, BigInt(`0x${hex(bytes)}`));

    const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));

    // --- Keys and signatures ---------------------------------------------------------------------------------------------

    const keyId = async (name, type, publicKey) =>
        (await sha256(utf8(name), Uint8Array.of(10, type), publicKey)).slice(0, 4);

    const isWeak = (point) => {
        const bytes = Uint8Array.from(point);
        bytes[31] &= 0x7f;
        return WEAK_POINTS.has(hex(bytes));
    };

    // A verifier key of c2sp.org/signed-note: name, eight hexadecimal digits and base64, joined by plus signs.
    const parseKey = async (line, type) => {
        const [name, id, ...rest] = line.split("+");
        const typed = rest.length > 0 ? base64(rest.join("+")) : null;
        expect(typed !== null, "expected a verifier key: its name, eight hexadecimal digits and base64, joined by plus signs");
        expect(name !== "" && !SPACE_PLUS_OR_CONTROL.test(name), "expected a key name without spaces");
        expect(utf8(name).length <= KEY_NAME_BYTES_MAX, `expected a key name of at most ${KEY_NAME_BYTES_MAX} bytes`);
        expect(typed[0] === type, type === LOG_KEY ? "this is not the key of a log" : "this is not the key of a witness");
        expect(typed.length === 33, "expected a public key of 32 bytes");
        const publicKey = typed.slice(1);
        expect(!isWeak(publicKey), "this public key is a weak one: anything is signed under it");
        const ownId = await keyId(name, type, publicKey);
        expect(hex(ownId) === id, "the key's id is not that of its name and its bytes: a part of it was changed");
        return { line, name, id: ownId, publicKey, type };
    };

    const parseLogKey = (line) => parseKey(line.trim(), LOG_KEY);
    const parseWitnessKey = (line) => parseKey(line.trim(), WITNESS_KEY);

    const isSigned = async (publicKey, signature, message) => {
        if (signature.length !== 64 || isWeak(signature.slice(0, 32))) return false;
        try {
            const key = await crypto.subtle.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]);
            return await crypto.subtle.verify({ name: "Ed25519" }, key, signature, message);
        } catch (error) {
            if (error.name === "NotSupportedError") throw error;
            return false;
        }
    };

    // --- The file --------------------------------------------------------------------------------------------------------

    const parseSignature = (line) => {
        const parts = /^— ([^ ]+) ([^ ]+)$/u.exec(line);
        if (parts === null || SPACE_PLUS_OR_CONTROL.test(parts[1])) return null;
        const bytes = base64(parts[2]);
        return bytes === null || bytes.length < 5 ? null : { name: parts[1], id: bytes.slice(0, 4), bytes: bytes.slice(4) };
    };

    // c2sp.org/signed-note: a text, an empty line, signature lines.
    const parseNote = (note) => {
        expect(utf8(note).length <= NOTE_BYTES_MAX, "the checkpoint is too long");
        const emptyLine = note.lastIndexOf("\n\n");
        expect(emptyLine >= 0, "the checkpoint is not a text, an empty line and signature lines");
        const said = note.slice(0, emptyLine + 1);
        expect(!/[\0-\x09\x0b-\x1f]/.test(said), "the checkpoint has a control character in it");
        const lines = note.slice(emptyLine + 2).split("\n");
        expect(lines.pop() === "", "the checkpoint does not end with a newline");
        expect(lines.length > 0, "the checkpoint has no signature");
        expect(lines.length <= SIGNATURES_MAX, `the checkpoint has more than ${SIGNATURES_MAX} signatures`);
        const signatures = lines.map(parseSignature);
        const broken = signatures.indexOf(null);
        expect(broken < 0, `signature line ${broken + 1} is not a dash, a key name and base64`);
        return { said, signatures };
    };

    // c2sp.org/tlog-proof@v1.
    const parseFile = (bytes) => {
        expect(bytes.length <= FILE_BYTES_MAX, "the file is longer than any proof");
        const file = text(bytes, "the file");
        const header = "c2sp.org/tlog-proof@v1\n";
        expect(file.startsWith(header), "the first line is not c2sp.org/tlog-proof@v1");
        const rest = file.slice(header.length);
        const emptyLine = rest.indexOf("\n\n");
        expect(emptyLine >= 0, "there is no empty line and no checkpoint behind the proof");
        const lines = rest.slice(0, emptyLine).split("\n");
        let extra = null;
        if (lines[0].startsWith("extra ")) {
            extra = base64(lines.shift().slice("extra ".length));
            expect(extra !== null && extra.length <= EXTRA_BYTES_MAX, "the line extra is not base64");
        }
        const first = lines.shift() ?? "";
        const index = first.startsWith("index ") ? decimal(first.slice("index ".length)) : null;
        expect(index !== null, "there is no line index with a number");
        expect(lines.length <= PATH_MAX, `the proof has more than ${PATH_MAX} hashes`);
        const path = lines.map(hash);
        const broken = path.indexOf(null);
        expect(broken < 0, `line ${broken + 1} of the proof is not a hash`);
        return { extra, index, path, note: parseNote(rest.slice(emptyLine + 2)) };
    };

    // c2sp.org/tlog-checkpoint: the log's name, the tree's size, its root.
    const parseCheckpoint = (said) => {
        const [origin, size, root, ...extensions] = said.slice(0, -1).split("\n");
        expect(root !== undefined && !extensions.includes(""), "the checkpoint has fewer than three lines, or an empty one");
        expect(origin !== "", "the checkpoint names no log");
        const checkpoint = { origin, size: decimal(size), root: hash(root) };
        expect(checkpoint.size !== null, "the checkpoint's second line is not the size of a tree");
        expect(checkpoint.root !== null, "the checkpoint's third line is not a root");
        return checkpoint;
    };

    // --- The entry -------------------------------------------------------------------------------------------------------

    // A magic text, version 1, and fields with ascending tags: tag, length in four bytes, value.
    const parseFields = (bytes, magic, what) => {
        const start = utf8(`${magic}\0`);
        expect(equal(bytes.slice(0, start.length), start), `${what} does not begin as one`);
        expect(bytes[start.length] === 1, `${what} is not of version 1`);
        const fields = new Map();
        let last = -1;
        for (let at = start.length + 1; at < bytes.length; ) {
            const tag = bytes[at];
            expect(tag > last, `the fields of ${what} are out of order`);
            expect(at + 5 <= bytes.length, `${what} ends within a field`);
            const length = new DataView(bytes.buffer, bytes.byteOffset + at + 1, 4).getUint32(0);
            expect(at + 5 + length <= bytes.length, `${what} ends within a field`);
            fields.set(tag, bytes.slice(at + 5, at + 5 + length));
            last = tag;
            at += 5 + length;
        }
        return fields;
    };

    const LEAF_FIELDS = [
        [1, "stream", "text"], [2, "streamCreatedNs", 8], [3, "regressions", 4], [4, "sequence", 8], [5, "subject", "text"],
        [6, "serverTimeNs", 8], [7, "headersSha256", "hash", "optional"], [8, "payloadSha256", "hash"],
        [9, "disposition", "text"], [10, "recordId", "text", "optional"], [11, "rowId", 8, "optional"],
        [12, "committedAtUs", 8], [13, "reason", "text", "optional"], [14, "detail", "text", "optional"],
    ];

    const parseLeaf = (bytes) => {
        const fields = parseFields(bytes, "LEDGER-LEAF", "the leaf");
        const leaf = {};
        for (const [tag, name, kind, optional] of LEAF_FIELDS) {
            const value = fields.get(tag);
            fields.delete(tag);
            if (value === undefined) {
                expect(optional, `the leaf has no ${name}`);
            } else if (kind === "text") {
                leaf[name] = text(value, `the leaf's ${name}`);
            } else {
                expect(value.length === (kind === "hash" ? 32 : kind), `the leaf's ${name} has another length`);
                leaf[name] = kind === "hash" ? value : number(value);
            }
        }
        expect(fields.size === 0, `the leaf has the unknown field ${[...fields.keys()][0]}: a newer program may know it`);
        expect(["recorded", "duplicate", "rejected"].includes(leaf.disposition), "the leaf has an unknown disposition");
        expect((leaf.reason === undefined) === (leaf.detail === undefined), "the leaf has half a rejection");
        return leaf;
    };

    const parseEntry = (extra) => {
        expect(extra !== null, "the proof shows no entry: it has no extra data");
        const fields = parseFields(extra, "LEDGER-PROOF", "the extra data");
        const [leafBytes, headers, payload] = [1, 2, 3].map((tag) => fields.get(tag) ?? null);
        const unknown = [...fields.keys()].find((tag) => tag < 1 || tag > 3);
        expect(unknown === undefined, `the extra data has the unknown field ${unknown}: a newer program may know it`);
        expect(leafBytes !== null, "the extra data holds no leaf");
        return { leafBytes, headers, payload, leaf: parseLeaf(leafBytes) };
    };

    // --- The steps -------------------------------------------------------------------------------------------------------

    const checkBytes = async ({ leaf, headers, payload }) => {
        const shown = [];
        for (const [what, bytes, expected] of [["bytes", payload, leaf.payloadSha256], ["headers", headers, leaf.headersSha256]]) {
            if (bytes === null) continue;
            const found = await sha256(bytes);
            expect(expected !== undefined, `the proof shows ${what}, and the leaf says that there were none`);
            expect(equal(found, expected), `the ${what} are not those that were logged: the leaf names another SHA-256`);
            shown.push(what);
        }
        return shown;
    };

    // RFC 9162 §2.1.3.2.
    const rootFrom = async (leafHash, index, size, path) => {
        expect(index < size, "the entry's index is not below the tree's size");
        let [place, last, node] = [index, size - 1n, leafHash];
        for (const sibling of path) {
            expect(last !== 0n, "the proof goes on beyond the root");
            if ((place & 1n) === 1n || place === last) {
                node = await sha256(Uint8Array.of(1), sibling, node);
                while ((place & 1n) === 0n && place !== 0n) {
                    place >>= 1n;
                    last >>= 1n;
                }
            } else {
                node = await sha256(Uint8Array.of(1), node, sibling);
            }
            place >>= 1n;
            last >>= 1n;
        }
        expect(last === 0n, "the proof ends below the root");
        return node;
    };

    const signaturesOf = (note, key) =>
        note.signatures.filter((signature) => signature.name === key.name && equal(signature.id, key.id));

    const checkSignature = async (note, checkpoint, key) => {
        expect(checkpoint.origin === key.name, `the checkpoint is of the log ${checkpoint.origin}, and your key of ${key.name}`);
        const own = signaturesOf(note, key);
        const others = note.signatures.filter((signature) => signature.name === key.name).map((signature) => hex(signature.id));
        const found = others.length > 0 ? `; the log's name is on a signature of the key ${others[0]}` : "";
        expect(own.length > 0, `your key ${hex(key.id)} did not sign it${found}`);
        for (const signature of own) {
            const valid = await isSigned(key.publicKey, signature.bytes, utf8(note.said));
            expect(valid, "the signature in your key's name is not your key's over this checkpoint");
        }
    };

    const checkWitness = async (note, key) => {
        const own = signaturesOf(note, key);
        expect(own.length > 0, `${key.name} did not cosign it`);
        for (const { bytes } of own) {
            const at = bytes.length >= 8 ? BigInt(`0x${hex(bytes.slice(0, 8))}`) : 0n;
            const message = utf8(`cosignature/v1\ntime ${at}\n${note.said}`);
            const valid = at > 0n && at <= I64_MAX && (await isSigned(key.publicKey, bytes.slice(8), message));
            expect(valid, `the cosignature in the name of ${key.name} is not its own over this checkpoint`);
        }
    };

    const checkWitnesses = async (note, witnesses) => {
        const keys = new Set(witnesses.map((key) => hex(key.publicKey)));
        expect(keys.size === witnesses.length, "two witnesses share one key, which would count twice");
        for (const key of witnesses) await checkWitness(note, key);
    };

    // What the page shows must be what is proven, and about the entry that the visitor asked for.
    const checkShown = ({ index, leaf, payload }, shown) => {
        const faults = [];
        const compare = (name, found, proven) => {
            if (String(found) !== String(proven)) faults.push(name);
        };
        if (shown.index !== undefined) compare("leaf index", shown.index, index);
        for (const [name, value] of Object.entries(shown.leaf ?? {})) compare(name, value, leaf[name] ?? "");
        if (shown.bytes !== undefined && payload !== null) compare("published bytes", shown.bytes, text(payload, "the payload"));
        for (const name of differingFields(payload, shown.fields ?? {})) faults.push(name);
        expect(faults.length === 0, `the page shows something else than the proof: ${faults.join(", ")}`);
    };

    // Columns that the ledger writes in another form than the publisher.
    const REWRITTEN = new Set(["timestamp", "created_at", "date", "period", "integrity_hash", "event_id", "id", "cost_usd", "usage_id"]);

    // Columns that stay empty where the publisher said nothing.
    const OPTIONAL = new Set(["details", "task_id", "ledger_ref", "model_used", "operation_type", "execution_ms", "venture_id"]);

    const differingFields = (payload, columns) => {
        let said = null;
        try {
            said = JSON.parse(text(payload, "the payload"));
        } catch {
            return [];
        }
        if (said === null || typeof said !== "object") return [];
        const named = Object.entries(columns).map(([column, value]) => [column === "timestamp_text" ? "timestamp" : column, column, value]);
        return named.filter(([name, column, value]) => {
            if (REWRITTEN.has(column)) return false;
            if (!Object.hasOwn(said, name) || said[name] === null) return OPTIONAL.has(column);
            if (typeof said[name] === "string") return said[name] !== value;
            if (typeof said[name] === "number") return Number(value) !== said[name];
            return !sameJson(value, said[name]);
        }).map(([, column]) => column);
    };

    const sorted = (value) => {
        if (Array.isArray(value)) return value.map(sorted);
        if (value === null || typeof value !== "object") return value;
        return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
    };

    const sameJson = (written, value) => {
        try {
            return JSON.stringify(sorted(JSON.parse(written))) === JSON.stringify(sorted(value));
        } catch {
            return false;
        }
    };

    // --- The whole -------------------------------------------------------------------------------------------------------

    const short = (bytes) => `${hex(bytes.slice(0, 4))} … ${hex(bytes.slice(-4))}`;

    /**
     * Checks a proof. `key` is the log's, or null; `witnesses` are those that must have cosigned; `shown` is what a page shows.
     * Returns the steps, each `good`, `bad` or `open`, and the verdict: `proven`, `unsigned` (all but the signature), or `failed`.
     */
    const verify = async (bytes, { key = null, witnesses = [], shown = null } = {}) => {
        const steps = [];
        const result = { steps, verdict: "failed", entry: null };
        // Browsers give WebCrypto to pages from https, from this machine and from files alone.
        if (globalThis.crypto?.subtle === undefined) {
            const detail = "this page came over plain http: open it over https, or check the downloaded proof with the offline page";
            steps.push({ name: "file", state: "bad", title: "This browser checks nothing here", detail });
            return result;
        }
        const step = async (name, check) => {
            try {
                const { title, detail = "", state = "good" } = await check();
                steps.push({ name, state, title, detail });
                return state === "good";
            } catch (error) {
                const isMissing = error.name === "NotSupportedError";
                if (!isMissing && !(error instanceof Fault)) throw error;
                const detail = isMissing ? "this browser's WebCrypto has no Ed25519: take a newer Chromium, Firefox or Safari" : error.message;
                steps.push({ name, state: isMissing ? "open" : "bad", title: TITLES[name], detail });
                return false;
            }
        };
        let file, checkpoint, entry, leafHash;
        const isFile = await step("file", async () => {
            file = parseFile(bytes);
            checkpoint = parseCheckpoint(file.note.said);
            return { title: "The file is a proof of a log", detail: `c2sp.org/tlog-proof@v1, index ${file.index}, log ${checkpoint.origin}` };
        });
        if (!isFile) return result;
        const isEntry = await step("entry", async () => {
            entry = parseEntry(file.extra);
            leafHash = await sha256(Uint8Array.of(0), entry.leafBytes);
            Object.assign(entry, { index: file.index, origin: checkpoint.origin, size: checkpoint.size });
            return { title: "The file holds an entry of a ledger", detail: `leaf ${short(leafHash)}` };
        });
        if (!isEntry) return result;
        await step("bytes", async () => {
            const found = await checkBytes(entry);
            const detail = `SHA-256 ${short(entry.leaf.payloadSha256)}`;
            if (found.includes("bytes")) return { title: `The ${found.join(" and ")} have the hash that the leaf names`, detail };
            return { title: "The publisher's bytes are not in the file: the leaf names their hash", detail };
        });
        await step("path", async () => {
            const root = await rootFrom(leafHash, file.index, checkpoint.size, file.path);
            expect(equal(root, checkpoint.root), "the hashes lead to another root than the checkpoint's");
            const title = `${file.path.length} hashes lead from the entry to the root of ${checkpoint.size} entries`;
            return { title, detail: `root ${short(root)}` };
        });
        await step("signature", async () => {
            if (key === null) return { state: "open", title: "Who signed the root is not checked: give the log's verifier key" };
            await checkSignature(file.note, checkpoint, key);
            return { title: "The root is signed by your key", detail: `${key.name}+${hex(key.id)}` };
        });
        if (witnesses.length > 0) {
            await step("witnesses", async () => {
                await checkWitnesses(file.note, witnesses);
                return { title: "Your witnesses cosigned the root", detail: witnesses.map(({ name }) => name).join(", ") };
            });
        }
        if (shown !== null) {
            await step("shown", async () => {
                checkShown(entry, shown);
                return { title: "This page shows what is proven" };
            });
        }
        result.entry = entry;
        const states = steps.map(({ state }) => state);
        if (!states.includes("bad")) result.verdict = states.includes("open") ? "unsigned" : "proven";
        return result;
    };

    const TITLES = {
        file: "The file is no proof",
        entry: "The file holds no entry of a ledger",
        bytes: "The bytes are not those that were logged",
        path: "The entry is not in the tree of the checkpoint",
        signature: "The root is not signed by your key",
        witnesses: "Your witnesses did not all cosign the root",
        shown: "This page does not show what is proven",
    };

    return { verify, parseLogKey, parseWitnessKey, hex, Fault };
})();

if (typeof module !== "undefined") module.exports = LedgerProof;
