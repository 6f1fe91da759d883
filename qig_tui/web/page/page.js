"use strict";
// Nothing of the page is inline: its security policy runs no script that is. Runs after the terminal's own script.
document.getElementById("again").addEventListener("click", () => location.reload());

// A key must not need a click first; the terminal can tell of its focus as soon as it is connected.
const terminal = document.getElementById("terminal");
new MutationObserver((_, watch) => {
  if (terminal.classList.contains("-connected")) {
    watch.disconnect();
    document.querySelector(".xterm-helper-textarea").focus();
  }
}).observe(terminal, { attributeFilter: ["class"] });
