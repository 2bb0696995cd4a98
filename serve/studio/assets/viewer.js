// Listens on the panel itself: what is inside is replaced with every edit.
element.addEventListener("input", (event) => {
  const stage = element.querySelector(".ef-stage");
  if (event.target.matches(".ef-wipe")) stage.style.setProperty("--cut", event.target.value + "%");
  if (event.target.matches(".ef-show"))
    stage.querySelector(".ef-" + event.target.value).hidden = !event.target.checked;
});
element.addEventListener(
  "load",
  ({ target }) => {
    const stage = target.closest(".ef-stage");
    stage?.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
  },
  true, // loading does not bubble
);
