// Runs in every document before its own scripts: the page's clock, and the frozen record of how its task ended.
// What it gives out is one function, under a name that only the hub knows, which is gone once the hub has taken it.
(() => {
  if (window !== window.top) return;
  const NAME = "@NAME@", PAGE_CLOCK = @PAGE_CLOCK@, EPOCH = @EPOCH@;
  const told = window[NAME + "t"];
  delete window[NAME + "t"];
  const RealDate = Date, RealError = Error, stringify = JSON.stringify, define = Object.defineProperty;
  const realTimeout = setTimeout, realClear = clearTimeout, realFrame = requestAnimationFrame;
  const realNow = performance.now.bind(performance), apply = Reflect.apply, construct = Reflect.construct;
  const MOST = 5000, FRAME_MS = 16;
  let now = 0, begun = 0, last = 0, timers = new Map();

  const time = () => (PAGE_CLOCK ? now : realNow());
  const run = (timer) => {
    try {
      if (typeof timer.what === "function") apply(timer.what, window, timer.args);
      else (0, eval)(String(timer.what));
    } catch (error) {
      reportError(error);
    }
  };
  const set = (what, delay, args, every) => {
    const ms = Math.max(+delay || 0, every === null ? 0 : 1);
    const timer = { id: ++last, due: time() + ms, what, args, every: every === null ? null : ms, real: 0 };
    timers.set(timer.id, timer);
    if (!PAGE_CLOCK) arm(timer, ms);
    return timer.id;
  };
  const arm = (timer, ms) => {
    timer.real = realTimeout(() => {
      if (timer.every === null) timers.delete(timer.id);
      else { timer.due = time() + timer.every; arm(timer, timer.every); }
      run(timer);
    }, ms);
  };
  const clear = (id) => {
    const timer = timers.get(id);
    if (!timer) return;
    timers.delete(id);
    if (timer.real) realClear(timer.real);
  };
  window.setTimeout = function setTimeout(what, delay, ...args) { return set(what, delay, args, null); };
  window.setInterval = function setInterval(what, delay, ...args) { return set(what, delay, args, delay); };
  window.clearTimeout = function clearTimeout(id) { clear(id); };
  window.clearInterval = function clearInterval(id) { clear(id); };
  if (PAGE_CLOCK) {
    window.requestAnimationFrame = function requestAnimationFrame(what) {
      return set(() => apply(what, window, [now]), FRAME_MS, [], null);
    };
    window.cancelAnimationFrame = function cancelAnimationFrame(id) { clear(id); };
    function PageDate(...args) {
      if (!new.target) return new RealDate(EPOCH + now).toString();
      return construct(RealDate, args.length ? args : [EPOCH + now], new.target === PageDate ? RealDate : new.target);
    }
    PageDate.prototype = RealDate.prototype;
    PageDate.prototype.constructor = PageDate;
    PageDate.now = () => Math.floor(EPOCH + now);
    PageDate.UTC = RealDate.UTC;
    PageDate.parse = RealDate.parse;
    define(PageDate, "name", { value: "Date" });
    window.Date = PageDate;
    performance.now = () => now;
  }

  const next = () => {
    let first = null;
    for (const timer of timers.values()) {
      if (first === null || timer.due < first.due || (timer.due === first.due && timer.id < first.id)) first = timer;
    }
    return first;
  };
  const frame = () => new Promise((done) => { realFrame(done); realTimeout(done, 50); });
  // Images and fonts come in real time, whatever the page's clock says.
  const arrived = async () => {
    const missing = () => document.fonts.status === "loading" || [...document.images].some((it) => !it.complete);
    for (let waited = 0; waited < 100 && missing(); waited++) await new Promise((done) => realTimeout(done, 2));
  };
  // Pictures of style sheets have their size at once where they were loaded before an element asks for them.
  const pictures = [];
  const pictured = async () => {
    const found = new Set();
    for (const sheet of document.styleSheets) {
      const base = sheet.href || document.baseURI;
      if (base.includes("jquery-ui")) continue;
      for (const rule of sheet.cssRules) {
        for (const [, url] of rule.cssText.matchAll(/url\(["']?([^"')]+)["']?\)/g)) found.add(new URL(url, base).href);
      }
    }
    const loads = [...found].map((url) => new Promise((done) => {
      const picture = new Image();
      pictures.push(picture);
      picture.onload = picture.onerror = done;
      picture.src = url;
    }));
    await Promise.race([Promise.all(loads), new Promise((done) => realTimeout(done, 2000))]);
  };
  // Lets the page's time pass until it has nothing more to do within `budget` ms, or all of it where `whole`.
  const settle = async (budget, whole, frames) => {
    if (frames) { await frame(); await frame(); }
    await null;
    if (!PAGE_CLOCK) {
      const end = realNow() + budget;
      for (;;) {
        const first = next();
        if (realNow() >= end || (!whole && document.readyState !== "loading" && (!first || first.due > end))) break;
        await new Promise((done) => realTimeout(done, 4));
      }
      await arrived();
      return [document.title, Math.round(realNow())];
    }
    const end = now + budget;
    let count = 0;
    for (let timer = next(); timer && timer.due <= end && count < MOST; timer = next(), count++) {
      now = Math.max(now, timer.due);
      if (timer.every === null) timers.delete(timer.id);
      else timer.due = now + timer.every;
      run(timer);
      await null;
    }
    if (whole) now = end;
    await arrived();
    return [document.title, Math.round(now - begun)];
  };

  let ended = false, loaded = 0;
  // Starts an episode of a MiniWoB page and tells how it ends, with who called.
  const start = async (seed) => {
    const before = window.core;
    if (Object.getOwnPropertyDescriptor(before, "endEpisode").configurable) {
      loaded = last;
      await pictured();
      const original = before.endEpisode;
      define(before, "endEpisode", {
        configurable: false,
        writable: false,
        value: function endEpisode(reward, proportional, reason) {
          if (before.EP_TIMER === null || ended) return;
          ended = true;
          const stack = String(new RealError().stack);
          apply(original, before, [reward, proportional, reason]);
          told(stringify({ raw: +reward, reward: +window.WOB_REWARD_GLOBAL, reason: String(reason || ""), stack }));
        },
      });
    }
    // Timers of the page's own beginning stay; those of the last episode are not this one's.
    for (const id of [...timers.keys()]) if (id > loaded) clear(id);
    before.EP_TIMER = null;
    begun = now;
    ended = false;
    if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
    before.EPISODE_MAX_TIME = 2147483647;
    Math.seedrandom(String(seed));
    before.startEpisodeReal();
    // The score board tells of other episodes; the canvas shows where was clicked.
    for (const id of ["reward-display", "click-canvas"]) {
      const board = document.getElementById(id);
      if (board) board.style.display = "none";
    }
    for (let waited = 0; !window.WOB_TASK_READY && waited < 200; waited++) {
      await settle(50, true, false);
      await new Promise((done) => realTimeout(done, 2));
    }
    await arrived();
    const said = before.getUtterance();
    return typeof said === "string" ? { goal: said, fields: null } : { goal: said.utterance, fields: said.fields };
  };
  define(window, NAME, { value: { settle, start }, configurable: true, enumerable: false, writable: false });
})();
