// Fills the key of a newly added inline sale from its name. Django does this for its own inlines;
// unfold replaces their script and leaves this part out.
"use strict";
document.addEventListener("formset:added", (event) => {
  const name = event.target.querySelector('input[name$="-name"]');
  const slug = event.target.querySelector('input[name$="-slug"]');
  if (name && slug) django.jQuery(slug).prepopulate([`#${CSS.escape(name.id)}`], slug.maxLength);
});
