// Dialogs for phones whose browser has none: Safari before 15.4, Firefox before 98. What they look like there is in style.css.

const theirs = ((window as { HTMLDialogElement?: typeof HTMLElement }).HTMLDialogElement ?? HTMLUnknownElement).prototype;

if (!("showModal" in theirs)) {
  const cameFrom = new WeakMap<HTMLElement, Element | null>();
  Object.assign(theirs, {
    showModal(this: HTMLElement): void {
      cameFrom.set(this, document.activeElement);
      for (const [name, value] of [["open", ""], ["role", "dialog"], ["aria-modal", "true"]] as const) this.setAttribute(name, value);
      this.querySelector<HTMLElement>("input, select, textarea, button")?.focus();
    },
    close(this: HTMLElement): void {
      this.removeAttribute("open");
      const before = cameFrom.get(this);
      if (before instanceof HTMLElement) before.focus();
      this.dispatchEvent(new Event("close"));
    },
  });
}
