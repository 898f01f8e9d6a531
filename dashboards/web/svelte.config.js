// What svelte-check and the build both read; the build's own settings stand in vite.config.ts.
export default { compilerOptions: { runes: true } };
