/* The page that subscribes this browser to messages. One button; each outcome is a sentence that the page holds already. */
"use strict";

(() => {
  const page = document.getElementById("push");
  const button = document.getElementById("subscribe");
  const { key, token, worker, door } = page.dataset;

  const say = (outcome) => {
    for (const one of page.querySelectorAll("[data-outcome]")) one.hidden = one.dataset.outcome !== outcome;
    button.hidden = outcome === "done" || outcome === "home";
  };

  const bytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/") + "=".repeat((4 - (text.length % 4)) % 4));
    return Uint8Array.from(plain, (one) => one.charCodeAt(0));
  };

  const subscribe = async (registration) => {
    const wanted = { userVisibleOnly: true, applicationServerKey: bytes(key) };
    try {
      return await registration.pushManager.subscribe(wanted);
    } catch (error) {
      // Subscribed for another key, of a gateway before this one: that one can't send any more.
      const before = error.name === "InvalidStateError" && (await registration.pushManager.getSubscription());
      if (!before) throw error;
      await before.unsubscribe();
      return registration.pushManager.subscribe(wanted);
    }
  };

  const register = async () => {
    if ((await Notification.requestPermission()) !== "granted") return "denied";
    await navigator.serviceWorker.register(worker, { scope: "/push/" });
    const registration = await navigator.serviceWorker.ready;
    const subscription = (await subscribe(registration)).toJSON();
    const answer = await fetch(door, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token, subscription }),
    });
    return answer.status === 201 ? "done" : "failed";
  };

  if (!("serviceWorker" in navigator && "PushManager" in window && "Notification" in window)) {
    say("home");
    return;
  }
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      say(await register());
    } catch (error) {
      console.warn(error);
      say("failed");
    }
    button.disabled = false;
  });
})();
