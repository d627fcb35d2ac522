// Before the first paint, or a dark page flashes light.
try {
  const theme = JSON.parse(localStorage.getItem("llavakit.settings") || "{}").theme;
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* no storage, or not ours: the system's theme */ }
