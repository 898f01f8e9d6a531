// Node-RED as the bench runs it: on loopback, without its editor, asking nobody and installing nothing.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.SATOMORI_UI_PORT),
    httpAdminRoot: false,
    credentialSecret: false,
    diagnostics: { enabled: false },
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false, palette: { allowInstall: false }, modules: { allowInstall: false } },
    logging: { console: { level: "warn", metrics: false, audit: false } },
};
