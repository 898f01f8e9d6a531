/* The service worker: shows what a push message says (gateway.notify.push.payload), and opens its page when it is touched.

A push is always shown, whatever is in it: browsers end the subscription of who stays silent. */
"use strict";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

const said = (event) => {
  try {
    const message = event.data.json();
    return message && typeof message === "object" ? message : {};
  } catch {
    return {};
  }
};

self.addEventListener("push", (event) => {
  const message = said(event);
  // Only our own pages are opened.
  const url = String(message.answer_url || "").startsWith(`${self.location.origin}/`) ? message.answer_url : null;
  const most = ("maxActions" in Notification && Notification.maxActions) || 0;
  event.waitUntil(
    self.registration.showNotification(String(message.title || "里守り"), {
      body: String(message.body || ""),
      tag: String(message.tag || "satomori"),
      lang: message.language === "en" ? "en" : "ja",
      icon: "/icon.svg",
      requireInteraction: message.severity === "critical",
      // Every button opens the page where it is pressed: a touch by mistake on a locked screen answers nothing.
      actions: (Array.isArray(message.buttons) ? message.buttons : [])
        .slice(0, most)
        .map((one) => ({ action: String(one.answer), title: String(one.label) })),
      data: { url },
    }),
  );
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const { url } = event.notification.data || {};
  if (url) event.waitUntil(self.clients.openWindow(url));
});
