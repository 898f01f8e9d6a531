// What was done last on this page, in words: one place says it aloud, wherever the act was.

export const told = $state({ words: "" });
/** The element that says it. Focus goes there when what had it is gone with the act. */
export const TOLD = "told";
