// Live updates and what else forms alone cannot do. Every page works without it.
"use strict";

// The visitor's own time beside each time in UTC.
function addOwnTime(within) {
    for (const time of within.querySelectorAll("time[datetime]:not([data-here])")) {
        const moment = new Date(time.dateTime);
        if (Number.isNaN(moment.getTime())) continue;
        time.dataset.here = "";
        if (moment.getTimezoneOffset() === 0) continue;
        const utcDay = time.dateTime.slice(0, 10);
        const pad = (number) => String(number).padStart(2, "0");
        const day = `${moment.getFullYear()}-${pad(moment.getMonth() + 1)}-${pad(moment.getDate())}`;
        const clock = `${pad(moment.getHours())}:${pad(moment.getMinutes())}`;
        const here = document.createElement("span");
        here.className = "here";
        here.textContent = `${day === utcDay ? "" : `${day} `}${clock} here`;
        time.append(here);
    }
}

// New lines of the timeline, as they are committed.
function follow(table) {
    const body = table.tBodies[0];
    const news = document.getElementById("live-news");
    const most = Number(table.dataset.liveMax);
    const retryMs = 30000;
    let count = 0;

    function say(text) {
        if (news) news.textContent = text;
    }

    function add(html) {
        const rows = document.createElement("tbody");
        rows.innerHTML = html; // The console's own markup: what an agent wrote in it is escaped.
        for (const row of [...rows.rows]) {
            if (body.querySelector(`tr[data-leaf="${CSS.escape(row.dataset.leaf)}"]`)) continue;
            // What is being read stays where it is.
            const before = document.documentElement.scrollHeight;
            const isAtTop = body.getBoundingClientRect().top >= 0;
            row.classList.add("new");
            body.prepend(row);
            addOwnTime(row);
            if (!isAtTop) window.scrollBy(0, document.documentElement.scrollHeight - before);
            count += 1;
        }
        while (body.rows.length > most && !body.lastElementChild.contains(document.activeElement)) body.lastElementChild.remove();
        table.hidden = false;
        const nothing = document.querySelector("main > .empty");
        if (nothing && count > 0) nothing.remove();
        say(count === 1 ? "1 new line since you opened this page." : `${count} new lines since you opened this page.`);
    }

    function open() {
        const events = new EventSource(table.dataset.live);
        events.addEventListener("line", (event) => add(event.data));
        events.addEventListener("missed", () => say("More was recorded than is shown here. Reload the page to see it all."));
        events.addEventListener("error", () => {
            if (events.readyState !== EventSource.CLOSED) return;
            say("Live updates are not available now. Reload the page to see what is new.");
            window.setTimeout(open, retryMs);
        });
        window.addEventListener("pagehide", () => events.close(), { once: true });
    }

    open();
}

addOwnTime(document);
const live = document.querySelector("table[data-live]");
if (live) follow(live);
