// Runs before the page is drawn, so that the chosen theme never flashes into the other.
"use strict";
try {
  const theme = localStorage.getItem("claimhouse-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is off: the system's theme holds */ }
