// Where who is not signed in goes, and whence they come back to what they had open.

export const loginPath = (): string =>
  `/login?next=${encodeURIComponent(location.pathname + (location.hash.startsWith("#/") ? location.hash : ""))}`;
