// Who was told of an alert, person by person. Pure.

import type { components } from "../api/schema";

type Shapes = components["schemas"];
type Said = Pick<Shapes["AnswerJson"], "contact" | "name" | "answer" | "at_us">;
type Sent = Pick<Shapes["DeliveryJson"], "id" | "contact" | "state" | "created_us" | "sent_us">;
/** One person: `answer` what they said last, `last` the message that says most of where it stands, `all` every one, the oldest first. */
export interface Person { contact: string; name: string | null; answer: Said | null; last: Sent | null; all: readonly Sent[] }

/** In the order in which they were first told; who answered without having been told comes after. */
export function peopleOf(answers: readonly Said[], messages: readonly Sent[]): Person[] {
  const sent = [...messages].sort((a, b) => a.created_us - b.created_us);
  const said = new Map([...answers].sort((a, b) => a.at_us - b.at_us).map((one) => [one.contact, one])); // the last of each stays
  return [...new Set([...sent, ...answers].map((one) => one.contact))].map((contact) => {
    const all = sent.filter((one) => one.contact === contact);
    const answer = said.get(contact) ?? null;
    // That a message was not needed any more says less than what became of the one before.
    const last = [...all].reverse().find((one) => one.state !== "dropped") ?? all[0] ?? null;
    return { contact, name: answer?.name ?? null, answer, last, all };
  });
}
