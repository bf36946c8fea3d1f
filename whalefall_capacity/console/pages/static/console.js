"use strict";

// Filters that apply at once, buttons that start runs, runs that are watched, and cancel. Without script every page still works.
(() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const word = (key, values = {}) =>
    Object.entries(values).reduce((text, [name, value]) => text.replaceAll(`{${name}}`, value), words[key] ?? key);
  const csrf = () => document.querySelector('meta[name="csrf-token"]')?.content ?? "";
  // On a narrow screen the menu scrolls: where one is stands in it.
  document.querySelector("header [aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  const toLogin = () => {
    const here = location.pathname + location.search;
    location.assign(`/login?next=${encodeURIComponent(here)}`);
  };

  async function ask(path, method = "GET", body = undefined) {
    const headers = { Accept: "application/json", "Accept-Language": document.documentElement.lang };
    if (method !== "GET") headers["X-CSRFToken"] = csrf();
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
    } catch {
      throw new Error(word("error.network"));
    }
    if (answer.status === 401) toLogin();
    // What is not in the console's own form comes from somebody between, such as a proxy with its page of an error.
    const content = await answer.json().catch(() => undefined);
    const told = typeof content?.success === "boolean";
    if (told && answer.ok) return content.data;
    const message = told ? content.message : word("error.no_answer", { status: answer.status });
    throw Object.assign(new Error(message), { final: told && answer.status < 500 });
  }

  // Replace parts of this page by what the server says of it now; what the reader has focused stays focused.
  async function refresh(...ids) {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/login") return toLogin();
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ids) {
      const [old, now] = [document.getElementById(id), page.getElementById(id)];
      if (!old || !now || old.isEqualNode(now)) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement.dataset.cancel : undefined;
      old.replaceWith(document.adoptNode(now));
      if (focused) document.querySelector(`[data-cancel="${CSS.escape(focused)}"]`)?.focus();
    }
    document.dispatchEvent(new Event("whalefall:refreshed"));
  }

  // An empty field says nothing: it does not belong in the URL.
  const filters = document.getElementById("filters");
  for (const form of document.querySelectorAll("form.filters")) {
    form.addEventListener("submit", () => {
      for (const field of form.elements) {
        if (field.name && field.value === "") field.disabled = true;
      }
    });
  }
  // What is ticked in a list of several is sent together, when the list is closed.
  const ticked = (list) => [...list.querySelectorAll("input[type=checkbox]")].map((box) => box.checked).join();
  for (const list of filters?.querySelectorAll("details[data-several]") ?? []) {
    let before = ticked(list);
    list.addEventListener("toggle", () => {
      if (list.open) before = ticked(list);
      else if (ticked(list) !== before) filters.requestSubmit();
    });
    list.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      list.open = false;
      list.querySelector("summary").focus();
    });
    list.querySelector("[data-narrows]").addEventListener("input", (event) => {
      const wanted = event.target.value.toLowerCase();
      for (const label of list.querySelectorAll("label")) label.hidden = !label.textContent.toLowerCase().includes(wanted);
    });
    document.addEventListener("click", (event) => {
      if (list.open && !list.contains(event.target)) list.open = false;
    });
  }
  filters?.addEventListener("change", (event) => {
    if (event.target.closest("details[data-several]")) return;
    for (const name of (event.target.dataset.clears ?? "").split(" ").filter(Boolean)) {
      if (filters.elements[name]) filters.elements[name].value = "";
    }
    if (filters.reportValidity()) filters.requestSubmit();
  });
  // Back from another page the fields may be as they were left: disabled.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  const line = document.getElementById("current-status");
  function say(text, run = null, link = null) {
    line.hidden = false;
    line.classList.remove("bad");
    line.replaceChildren();
    if (run) {
      const bar = document.createElement("progress");
      bar.max = run.progress_total || 1;
      bar.value = run.progress_completed + run.progress_failed;
      bar.setAttribute("aria-label", text);
      line.append(bar);
    }
    line.append(Object.assign(document.createElement("span"), { textContent: text }));
    if (link) line.append(Object.assign(document.createElement("a"), { href: `/runs/${link}`, textContent: word("current.open_run") }));
  }

  // A run goes on while the console is restarted or cannot be reached: it is asked for again.
  async function stateOf(runId) {
    for (;;) {
      try {
        return (await ask(`/api/v1/task-runs/${runId}?limit=1`)).run;
      } catch (error) {
        say(word("current.unseen", { message: error.message }), null, runId);
        line.classList.add("bad");
        if (error.final) return null;
      }
      await wait(3000);
    }
  }

  async function watch(runId, done) {
    const open = ["pending", "running"];
    for (let run; (run = await stateOf(runId)); ) {
      if (!open.includes(run.status)) {
        const good = run.status === "completed";
        if (good || run.status === "completed_with_errors") await refresh(...parts()).catch(() => {});
        say(good ? done : word("current.ended", { status: word(`status.${run.status}`) }), good ? { ...run, progress_total: run.progress_total || 1, progress_completed: run.progress_total ? run.progress_completed : 1 } : run, runId);
        if (!good) line.classList.add("bad");
        return;
      }
      const ended = run.progress_completed + run.progress_failed;
      say(run.progress_total ? word("current.progress", { done: ended, total: run.progress_total }) : word("current.waiting"), run, runId);
      await wait(700);
    }
  }

  // Whatever of the page shows sizes or runs: they are others once the run is over.
  const parts = () => ["cards", "charts", "live", ...[...document.querySelectorAll("[data-fresh][id]")].map((part) => part.id)];

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-launch]");
    if (!button) return;
    button.disabled = true;
    say(word("current.starting"));
    try {
      const { run_id } = await ask(button.dataset.launch, "POST", JSON.parse(button.dataset.body));
      await watch(run_id, button.dataset.done);
    } catch (error) {
      say(word("current.failed", { message: error.message }));
      line.classList.add("bad");
    }
    button.disabled = false;
  });

  document.addEventListener("click", async (event) => {
    const runId = event.target.dataset?.cancel;
    if (!runId || !window.confirm(word("runs.cancel_confirm"))) return;
    event.target.disabled = true;
    event.target.textContent = word("runs.cancelling");
    try {
      await ask(`/api/v1/task-runs/${encodeURIComponent(runId)}/actions/cancel`, "POST");
    } catch (error) {
      window.alert(error.message);
    }
    await refresh("live");
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-create]");
    if (!button) return;
    const status = document.getElementById("create-status");
    status.classList.remove("bad");
    button.disabled = true;
    try {
      const { created } = await ask("/api/v1/partitions", "POST", {});
      status.textContent = created.length ? word("partitions.created", { count: created.length }) : word("partitions.none_due");
      await refresh(...parts());
    } catch (error) {
      status.textContent = error.message;
      status.classList.add("bad");
    }
    button.disabled = false;
  });

  document.addEventListener("click", async (event) => {
    if (!event.target.dataset?.apply) return;
    if (!window.confirm(word("partitions.confirm"))) return;
    const status = document.getElementById("apply-status");
    event.target.disabled = true;
    try {
      const body = { dry_run: false, confirm: true, plan_id: event.target.dataset.apply };
      const { run_id } = await ask("/api/v1/partitions/actions/cleanup", "POST", body);
      location.assign(`/runs/${run_id}`);
    } catch (error) {
      status.textContent = error.message;
      event.target.disabled = false;
    }
  });

  const pace = { soon: 1500, later: 10000 };
  (async () => {
    for (let live; (live = document.getElementById("live")) && pace[live.dataset.live]; ) {
      await wait(pace[live.dataset.live]);
      if (!document.hidden) await refresh("live").catch(() => {});
    }
  })();
})();
