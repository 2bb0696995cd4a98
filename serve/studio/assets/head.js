// Light or dark: as the system has it, until somebody chooses.
const kept = localStorage.getItem("editfarm-theme");
if (kept) document.body.classList.toggle("dark", kept === "dark");
element.addEventListener("click", (event) => {
  if (!event.target.closest(".ef-theme")) return;
  const dark = document.body.classList.toggle("dark");
  localStorage.setItem("editfarm-theme", dark ? "dark" : "light");
});
