// Buttons of a panel become events for Python.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const about = button.dataset;
  if (about.index !== undefined) trigger("select", { index: Number(about.index) });
  if (about.id !== undefined) trigger("select", { id: about.id });
  if (about.show !== undefined) trigger("select", { id: about.show });
  if (about.cancel !== undefined) trigger("delete", { id: about.cancel });
});
