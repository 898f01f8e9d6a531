/* Passkeys, in two places: coming in by one, and making one. Each outcome is a sentence that the page holds already. */
"use strict";

(() => {
  const place = document.getElementById("passkey");
  const button = place.querySelector("button");
  const { begin, finish, makes, next: wanted } = place.dataset;

  const say = (outcome) => {
    for (const one of place.querySelectorAll("[data-outcome]")) one.hidden = one.dataset.outcome !== outcome;
  };

  const bytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/") + "=".repeat((4 - (text.length % 4)) % 4));
    return Uint8Array.from(plain, (one) => one.charCodeAt(0));
  };

  const written = (buffer) => {
    if (!buffer) return undefined;
    const plain = Array.from(new Uint8Array(buffer), (one) => String.fromCharCode(one)).join("");
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };

  const ask = async (path, said) => {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(said),
    });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.json();
  };

  const listed = (ones) => (ones || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const make = (options) => navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: listed(options.excludeCredentials),
    },
  });

  const get = (options) => navigator.credentials.get({
    publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: listed(options.allowCredentials) },
  });

  const run = async () => {
    const { ticket, options } = await ask(begin, {});
    const made = await (makes ? make(options) : get(options));
    const { response } = made;
    const credential = {
      id: made.id,
      rawId: written(made.rawId),
      type: made.type,
      response: {
        clientDataJSON: written(response.clientDataJSON),
        attestationObject: written(response.attestationObject),
        authenticatorData: written(response.authenticatorData),
        signature: written(response.signature),
        userHandle: written(response.userHandle),
        transports: response.getTransports ? response.getTransports() : undefined,
      },
    };
    return ask(finish, { ticket, credential });
  };

  if (!window.PublicKeyCredential || !navigator.credentials) {
    say("none");
    return;
  }
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const { next } = await run();
      say("done");
      location.assign(wanted || next);
    } catch (error) {
      console.warn(error);
      say("failed");
    }
    button.disabled = false;
  });
})();
