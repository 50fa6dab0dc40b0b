// A page opened from a folder may not read the others: then a search shows titles alone.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// A folding part is named by what stands in it, and the theme's arrows by what they do.
for (const summary of document.querySelectorAll("summary")) {
  if (summary.textContent.trim()) summary.removeAttribute("aria-label");
  else summary.ariaLabel = "Show or hide the pages below";
}
