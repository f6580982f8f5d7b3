// What a page does beyond links and forms: the moment's slider, live updates and their pause, charts, theme, time zone.
// Everything that changes what is shown changes the address too, so every view can be reloaded and passed on.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const keep = (name, value) => { try { localStorage.setItem("claimhouse-" + name, value); } catch { /* off */ } };
  const kept = (name) => { try { return localStorage.getItem("claimhouse-" + name); } catch { return null; } };
  let spoken = 0;

  function say(text, gap = 0) {
    if (Date.now() - spoken < gap) return;
    spoken = Date.now();
    $("#say").textContent = text;
  }

  // --- going to another moment without losing the slider's focus

  let going = null;
  async function go(url, { push = true } = {}) {
    going?.abort();
    const mine = (going = new AbortController());
    document.body.classList.add("busy");
    try {
      const answer = await fetch(url, { signal: mine.signal, headers: { Accept: "text/html" } });
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!$("#page", next)) { location.assign(url); return; }
      for (const id of ["#nav", "#bar-state", "#moment", "#page"]) swap(id, next);
      $("#bar").className = $("#bar", next).className;
      const [slider, fresh] = [$("#slider"), $("#slider", next)];
      for (const name of ["min", "max"]) slider[name] = fresh[name];
      slider.value = fresh.value;
      slider.setAttribute("aria-valuetext", fresh.getAttribute("aria-valuetext"));
      slider.disabled = fresh.disabled;
      document.title = next.title;
      if (push) history.pushState({}, "", answer.redirected ? answer.url : url);
      arrive();
      say("Valued as of " + $("#bar-state .bar-when").textContent.trim());
    } catch (error) {
      if (error.name !== "AbortError") location.assign(url);
    } finally {
      if (going === mine) document.body.classList.remove("busy");
    }
  }

  function swap(id, next) {
    const [old, fresh] = [$(id), $(id, next)];
    if (!old || !fresh) return;
    const adopted = document.importNode(fresh, true);
    if (id === "#page") htmx.cleanup?.(old);
    old.replaceWith(adopted);
    if (id === "#page") htmx.process(adopted);
  }

  function withMoment(at) {
    const url = new URL(location.href);
    if (at) url.searchParams.set("at", at); else url.searchParams.delete("at");
    url.searchParams.delete("page");
    return url.pathname + url.search;
  }

  addEventListener("popstate", () => go(location.href, { push: false }));

  // --- the slider: each step is one transaction

  const steps = { asked: 0, timer: 0 };

  async function step(index, last) {
    const mine = ++steps.asked;
    const answer = await fetch(`/moments?index=${index}`);
    if (!answer.ok || mine !== steps.asked) return null;
    const told = await answer.json();
    const slider = $("#slider");
    slider.min = told.first;
    if (told.last > Number(slider.max)) slider.max = told.last;
    if (!told.step) return null;
    const now = index >= last;
    const when = now ? "now" : clock(told.step.committed_at, true);
    $("#bar-state .bar-when").textContent = when;
    const note = $("#bar-note");
    if (note) note.textContent = now ? "" : (told.step.xid ? `after transaction ${told.step.xid}, ` : "") + told.step.at;
    slider.setAttribute("aria-valuetext", when);
    return now ? "" : told.step.at;
  }

  function slide() {
    const slider = $("#slider");
    const [index, last] = [Number(slider.value), Number(slider.max)];
    clearTimeout(steps.timer);
    const asked = step(index, last);
    steps.timer = setTimeout(async () => {
      const at = await asked;
      if (at !== null) go(withMoment(at));
    }, 250);
  }

  function nudge(by) {
    const slider = $("#slider");
    slider.value = Number(slider.value) + by;
    slide();
  }

  document.addEventListener("input", (event) => {
    if (event.target.id === "slider") slide();
  });

  // --- live updates

  const live = { paused: false, claims: 0, more: 0 };

  addEventListener("htmx:sse:before:message", (event) => {
    if (!live.paused) return;
    event.detail.cancelled = true;
    event.preventDefault();
  });

  document.addEventListener("beat", (event) => {
    if (live.paused) return;
    const told = JSON.parse(event.detail.data);
    for (const list of $$(".feed")) while (list.children.length > 12) list.lastElementChild.remove();
    for (const box of $$("[data-chart=rate], [data-chart=lag]")) box.chart?.beat(told);
    live.claims += told.claims;
    if (live.claims && Date.now() - spoken > 15000) {
      say(`${live.claims} new ${live.claims === 1 ? "claim" : "claims"}`);
      live.claims = 0;
    }
    zones($("#hops"));
    if ($("#hit-feed")) zones($("#hit-feed"));
  });

  // The queue is read while it changes: an entry that is there is brought up to date in its place, its form untouched; a
  // new one stands above the queue, so that nothing moves under the reader's hand.
  document.addEventListener("hits", (event) => {
    if (live.paused) return;
    const told = JSON.parse(event.detail.data);
    const arrived = $("#arrived");
    if (!arrived) { go(location.href, { push: false }); return; }
    for (const [band, count] of Object.entries(told.bands)) {
      const shown = $(`[data-band="${band}"] b`);
      if (shown) shown.textContent = count;
    }
    $("#all").textContent = Object.values(told.bands).reduce((sum, count) => sum + count, 0);
    for (const entry of told.entries) {
      const fresh = new DOMParser().parseFromString(entry.html, "text/html").querySelector(".entry");
      const old = $(`.entry[data-claim="${CSS.escape(entry.claim)}"]`);
      if (old) {
        for (const part of [".entry-score", ".entry-main"]) $(part, old).replaceWith(document.importNode($(part, fresh), true));
        old.classList.add("fresh");
        zones(old);
      } else if (entry.shown) {
        const list = $("ol", arrived);
        list.prepend(document.importNode(fresh, true));
        list.firstElementChild.classList.add("fresh");
        zones(list.firstElementChild);
        while (list.children.length > 20) { list.lastElementChild.remove(); live.more += 1; }
        arrived.hidden = false;
      }
    }
    live.more += told.more;
    $("#arrived-more").textContent = live.more ? `and ${live.more} more: open the page anew for all` : "";
    if (live.more) arrived.hidden = false;
    const words = [[told.held, "new"], [told.withdrawn, "withdrawn"]].filter(([n]) => n).map(([n, what]) => `${n} ${what}`);
    if (words.length) say(`Indicators: ${words.join(", ")}`, 5000);
  });

  document.addEventListener("anew", () => { if (!live.paused) go(location.href, { push: false }); });

  function pause(button) {
    live.paused = !live.paused;
    button.setAttribute("aria-pressed", live.paused);
    button.textContent = live.paused ? "Resume" : "Pause";
    say(live.paused ? "Live updates paused" : "Live updates on");
    document.body.classList.toggle("paused", live.paused);
    if (!live.paused) go(location.href, { push: false });
  }

  function every(seconds) {
    const old = $("#live");
    if (!old) return;
    const url = new URL(old.getAttribute("hx-sse:connect"), location.href);
    url.searchParams.set("every", seconds);
    const fresh = document.createElement("div");
    fresh.id = "live";
    fresh.setAttribute("hx-sse:connect", url.pathname + url.search);
    fresh.setAttribute("hx-swap", "none");
    htmx.cleanup?.(old);
    old._htmx?.sse?.abortController?.abort();
    old.replaceWith(fresh);
    htmx.process(fresh);
    keep("every", seconds);
  }

  // --- charts

  const paint = (name) => {
    const probe = document.createElement("i");
    probe.className = "paint-" + name;
    document.body.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  };
  const short = (n) => {
    const size = Math.abs(n);
    if (size >= 1e6) return (n / 1e6).toFixed(size < 1e7 ? 1 : 0) + " M";
    if (size >= 1e4) return (n / 1e3).toFixed(0) + " k";
    return n.toLocaleString("en", { maximumFractionDigits: size < 10 ? 1 : 0 });
  };

  const tick = (seconds, gap) => {
    const zone = kept("zone") === "local" ? {} : { timeZone: "UTC" };
    const style = gap < 86400 ? { hour: "2-digit", minute: "2-digit" }
      : gap < 2.4e6 ? { day: "numeric", month: "short" } : { month: "short", year: "numeric" };
    return new Intl.DateTimeFormat("en-GB", { ...style, ...zone }).format(new Date(seconds * 1000));
  };

  function chart(box) {
    const data = JSON.parse(box.dataset.series);
    if (!data?.[0]?.length) return;
    const kind = box.dataset.chart;
    const line = (label, name, more = {}) => ({
      label, stroke: paint(name), width: 1.75, points: { show: false }, spanGaps: true,
      value: (_, v) => (v == null ? "–" : short(v)), ...more,
    });
    const stepped = { paths: uPlot.paths.stepped({ align: 1 }), spanGaps: false };
    const rate = { paths: uPlot.paths.bars({ size: [0.9, 6], align: 1 }), fill: paint("accent"), width: 0 };
    const kinds = {
      rate: { series: [line("changes/s", "accent", rate)], columns: [data[0], data[1]] },
      lag: {
        series: [line("commit → cut, ms", "accent"), line("cut → query, ms", "second")],
        columns: [data[0], data[2], data[3]],
      },
      claim: {
        series: [line("outstanding", "warn", stepped), line("paid", "accent", stepped), line("incurred", "ink", stepped)],
        columns: data,
      },
    };
    const { series, columns } = kinds[kind];
    const local = kept("zone") === "local";
    const axis = { stroke: paint("dim"), grid: { stroke: paint("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const height = box.classList.contains("tall") ? 260 : 180;
    const plot = new uPlot({
      width: Math.max(200, box.clientWidth), height, cursor: { y: false }, legend: { live: true },
      tzDate: (t) => (local ? new Date(t * 1000) : uPlot.tzDate(new Date(t * 1000), "Etc/UTC")),
      scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
      axes: [{ ...axis, space: 84, size: 30, values: (_, ticks, __, ___, gap) => ticks.map((t) => tick(t, gap)) }, { ...axis, size: 52, values: (_, ticks) => ticks.map(short) }],
      series: [{ value: (_, t) => (t == null ? "–" : clock(new Date(t * 1000).toISOString())) }, ...series],
    }, columns, box);
    const told = {
      plot,
      beat: ({ beats, now }) => {
        const at = Math.floor(now / 10) * 10;
        const [times] = columns;
        while (times[times.length - 1] < at) {
          times.push(times[times.length - 1] + 10);
          times.shift();
          for (const c of columns.slice(1)) { c.push(kind === "rate" ? 0 : null); c.shift(); }
        }
        for (const bucket of [at - 10, at]) {
          const place = times.indexOf(bucket);
          const here = beats.filter((b) => Math.floor(b[0] / 10) * 10 === bucket);
          if (place < 0 || !here.length) continue;
          if (kind === "rate") {
            columns[1][place] = Math.max(columns[1][place] ?? 0, here.reduce((sum, b) => sum + b[1], 0) / 10);
          } else {
            for (const [c, n] of [[1, 2], [2, 3]]) {
              const worst = Math.max(...here.map((b) => b[n] ?? -1));
              if (worst >= 0) columns[c][place] = Math.max(worst, columns[c][place] ?? 0);
            }
          }
        }
        plot.setData(columns);
      },
    };
    box.chart = told;
    new ResizeObserver(() => plot.setSize({ width: Math.max(200, box.clientWidth), height })).observe(box);
  }

  function charts() {
    for (const box of $$(".chart")) {
      box.chart?.plot.destroy();
      box.replaceChildren();
      chart(box);
    }
  }

  // --- times in UTC or local, light or dark

  function clock(iso, precise = false) {
    const when = new Date(iso);
    if (Number.isNaN(when.getTime())) return iso;
    const zone = kept("zone") === "local" ? {} : { timeZone: "UTC" };
    const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", ...zone });
    const time = when.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(precise ? { second: "2-digit" } : {}), ...zone });
    const micros = precise ? (/\.(\d+)/.exec(iso)?.[0] ?? "") : "";
    return `${day.replace("Sept", "Sep")} ${time}${micros}`;
  }

  function zones(root = document) {
    const local = kept("zone") === "local";
    const button = $("#zone");
    button.textContent = local ? "local" : "UTC";
    button.setAttribute("aria-pressed", local);
    for (const time of $$("time[datetime*=T]", root ?? document)) {
      time.textContent = clock(time.getAttribute("datetime"), "precise" in time.dataset);
      time.title = time.getAttribute("datetime");
    }
  }

  function theme(next) {
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    keep("theme", next);
    $("#theme-name").textContent = next;
    charts();
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, a");
    if (!target) return;
    if (target.id === "back") nudge(-1);
    else if (target.id === "forth") nudge(1);
    else if (target.id === "pause") pause(target);
    else if (target.id === "theme") theme({ auto: "light", light: "dark", dark: "auto" }[kept("theme") ?? "auto"] ?? "auto");
    else if (target.id === "zone") {
      keep("zone", kept("zone") === "local" ? "utc" : "local");
      zones();
      charts();
    } else if (target.id === "now" && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      go(withMoment(""));
    }
  });

  document.addEventListener("change", (event) => {
    if (event.target.id === "every") every(event.target.value);
    else if (event.target.matches("#filters select")) event.target.form.requestSubmit();
  });

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "get") return;
    const fields = [...new FormData(event.target)].filter(([, value]) => value !== "");
    event.preventDefault();
    const url = event.target.getAttribute("action") + (fields.length ? "?" + new URLSearchParams(fields) : "");
    go(url);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, textarea, select")) return;
    const search = $("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);

  function arrive() {
    live.paused = false;
    live.more = 0;
    document.body.classList.remove("paused");
    $("#theme-name").textContent = kept("theme") ?? "auto";
    zones();
    charts();
    const pace = $("#every");
    if (pace && kept("every") && [...pace.options].some((o) => o.value === kept("every")) && kept("every") !== pace.value) {
      pace.value = kept("every");
      every(pace.value);
    }
  }

  arrive();
  // Where the part of htmx that speaks SSE came after htmx had begun, it has passed the page's stream over. Asked too early,
  // a stream that htmx is about to open by itself would be opened twice, and every new line would come twice.
  addEventListener("load", () => setTimeout(() => {
    const stream = $("#live");
    if (stream && !stream._htmx?.sse) htmx.process(stream);
  }, 500));
  document.documentElement.dataset.ready = "";
})();
